#!/usr/bin/env bash
# Runs every test; the real parts are installed (tests/peers/install.sh).
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$root"
stage "tests" cargo test --locked --workspace --no-fail-fast
stage "tests without C" cargo test --locked -p keyd-core -p keyd-softkey --no-default-features --features rustcrypto
