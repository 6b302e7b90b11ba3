#!/usr/bin/env bash
# Formatting, clippy, dependencies, scripts.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$root"

deny() {
    if [ ! -x "$peers/bin/cargo-deny" ]; then
        cargo install --locked --quiet --root "$peers" cargo-deny@0.20.2
    fi
    "$peers/bin/cargo-deny" --all-features check bans licenses sources
    # The advisories lie in a database of their own, which a machine without an uplink cannot fetch.
    if "$peers/bin/cargo-deny" fetch db >"$logs/advisories.log" 2>&1; then
        "$peers/bin/cargo-deny" --all-features check advisories
    else
        echo "    advisories NOT checked: their database cannot be fetched from here"
    fi
}

# These build without C where RustCrypto does the cryptography.
without_c() {
    local crates=(-p keyd-core -p keyd-softkey -p keyd-x509 -p keyd-audit --no-default-features --features rustcrypto) tree
    tree=$(cargo tree --locked "${crates[@]}" -e normal,build --prefix none) || return
    if grep -E '^(aws-lc-[a-z]+|bindgen|cc|cmake|pkg-config) ' <<<"$tree"; then
        echo "    a build by RustCrypto alone needs these, which compile or link C" >&2
        return 1
    fi
    cargo clippy --locked "${crates[@]}" -- -D warnings
}

stage "packages" packages shellcheck systemd pkg-config libclang-dev libtss2-dev
stage "format" cargo fmt --all --check
stage "format of the fuzz targets" cargo fmt --manifest-path fuzz/Cargo.toml --check
stage "clippy" cargo clippy --locked --workspace --all-targets -- -D warnings
stage "without C" without_c
stage "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet
stage "scripts" shellcheck -x scripts/*.sh provisioning/keyd-provision provisioning/parts/*.sh tests/peers/install.sh .ci/run
stage "units" scripts/units.sh
stage "dependencies" deny
