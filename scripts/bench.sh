#!/usr/bin/env bash
# Builds for release and measures; prints the table and leaves target/bench/results.json.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$root"
stage "release build" quietly "cargo build --release" cargo build --locked --release --bins -p bench -p keyd-daemon -p keyd-spire-plugin
stage "measure" target/release/bench "$@"
