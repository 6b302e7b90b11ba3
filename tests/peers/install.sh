#!/usr/bin/env bash
# Installs the real parts that demo, tests and benchmarks run against, into target/peers: kryoptic, SPIRE, OpenSSL 3.5; and
# from packages: SoftHSM2, swtpm, tpm2-tools, systemd's tools, and what the build needs. A second run does only what is missing.
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib.sh"

build_packages=(gcc libc6-dev make perl pkg-config libclang-dev libtss2-dev)
peer_packages=(softhsm2 swtpm swtpm-tools tpm2-tools systemd mmdebstrap uidmap)

kryoptic() {
    local source=$root/tests/peers/kryoptic out=$peers/kryoptic
    unchanged "$out/built-from" "$source"/Cargo.{toml,lock} && return
    mkdir -p "$out"
    cd "$source"
    CARGO_TARGET_DIR=$peers/build/kryoptic cargo test --locked --release --no-run
    cp "$peers"/build/kryoptic/release/deps/libkryoptic_pkcs11*.so "$out/libkryoptic_pkcs11.so"
    fingerprint "$source"/Cargo.{toml,lock} >"$out/built-from"
}

# The default toolchain of a machine may be older and set to stay so; this one is what go.mod asks for.
spire() {
    local source=$root/tests/peers/spire out=$peers/spire
    unchanged "$out/built-from" "$source"/go.{mod,sum} && return
    mkdir -p "$out"
    cd "$source"
    GOTOOLCHAIN=go1.27.3 go build -mod=readonly -buildvcs=false -o "$out" tool
    fingerprint "$source"/go.{mod,sum} >"$out/built-from"
}

# OpenSSL 3.5 knows ML-DSA; Debian 12 has 3.0, so the one of Debian 13 is unpacked beside the system.
openssl35() {
    local out=$peers/openssl
    if [ -x "$out" ]; then return; fi
    case $(openssl version 2>/dev/null) in
        "OpenSSL 3."[5-9]* | "OpenSSL 3."[1-9][0-9]* | "OpenSSL "[4-9]*) ln -sf "$(command -v openssl)" "$out"; return ;;
    esac
    rm -rf "$peers/openssl-root"
    mmdebstrap --quiet --variant=extract --include=openssl trixie "$peers/openssl-root"
    cat >"$out.new" <<'SH'
#!/bin/sh
root=$(dirname "$(readlink -f "$0")")/openssl-root
lib=$root/usr/lib/$(uname -m)-linux-gnu
export OPENSSL_CONF=/dev/null OPENSSL_MODULES=$lib/ossl-modules
exec "$lib"/ld-linux-*.so.* --library-path "$lib" "$root/usr/bin/openssl" "$@"
SH
    chmod +x "$out.new"
    mv "$out.new" "$out"
}

for tool in cargo go; do
    command -v "$tool" >/dev/null || { echo "install $tool first: the README says how" >&2; exit 1; }
done
stage "packages" packages "${build_packages[@]}" "${peer_packages[@]}"
echo "==> real parts, side by side"
start=$SECONDS
jobs=()
quietly "kryoptic (PKCS#11 token with ML-DSA)" kryoptic & jobs+=($!)
quietly "SPIRE server and agent" spire & jobs+=($!)
quietly "OpenSSL 3.5" openssl35 & jobs+=($!)
for job in "$@"; do quietly "$job" bash -c "cd '$root' && $job" & jobs+=($!); done
together "${jobs[@]}"
echo "<== real parts: $((SECONDS - start)) s"
