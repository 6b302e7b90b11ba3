#!/usr/bin/env bash
# install.sh [--no-nss] [COMMAND...]: installs the real parts that demo, tests and benchmarks run against, into target/peers: kryoptic, NSS softoken, SPIRE,
# OpenSSL 3.5; and from packages: SoftHSM2, swtpm, tpm2-tools, systemd's tools, and what the build needs. Each COMMAND runs
# beside. A second run does only what is missing.
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib.sh"

build_packages=(gcc libc6-dev make perl pkg-config libclang-dev libtss2-dev)
peer_packages=(softhsm2 swtpm swtpm-tools tpm2-tools systemd mmdebstrap uidmap faketime libnspr4 libsqlite3-0)

kryoptic() {
    local source=$root/tests/peers/kryoptic out=$peers/kryoptic
    unchanged "$out/built-from" "$source"/Cargo.{toml,lock} && return
    mkdir -p "$out"
    cd "$source"
    CARGO_TARGET_DIR=$peers/build/kryoptic cargo test --locked --release --no-run
    cp "$peers"/build/kryoptic/release/deps/libkryoptic_pkcs11*.so "$out/libkryoptic_pkcs11.so"
    fingerprint "$source"/Cargo.{toml,lock} >"$out/built-from"
}

# The NSS of Debian 12 and 13 has no ML-DSA, sid's has: it is unpacked beside the system. Nothing but the tests on it needs it.
nss() {
    local out=$peers/nss work=$peers/build/nss mirror apt
    if [ -e "$out/libsoftokn3.so" ]; then return; fi
    set -e
    rm -rf "$out" "$out.new" "$work"
    mkdir -p "$out.new" "$work/lists/partial" "$work/cache/archives/partial"
    # shellcheck disable=SC2016
    mirror=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' | awk '$1 !~ /-/ { print $2; exit }')
    echo "deb $mirror sid main" >"$work/sources.list"
    apt=(-o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$work/lists"
        -o "Dir::Cache=$work/cache" -o "APT::Sandbox::User=$(id -un)" -o Acquire::Languages=none -o Acquire::http::Timeout=20)
    cd "$work"
    apt-get "${apt[@]}" -o APT::Update::Error-Mode=any update
    apt-get "${apt[@]}" download libnss3 libnss3-tools
    for package in *.deb; do dpkg-deb -x "$package" root; done
    cp root/usr/bin/certutil root/usr/lib/*/lib*.so "$out.new"
    mv "$out.new" "$out"
}

# Without NSS its tests are skipped, and say so.
nss_or_not() {
    local code
    set +e
    quietly "$1" nss
    code=$?
    set -e
    if [ "$code" -eq 0 ]; then return; fi
    mkdir -p "$peers/nss"
    echo "it could not be had from Debian sid" >"$peers/nss/absent"
    echo "    NSS softoken is absent; its tests will be skipped" >&2
}

# Go as the user has set it up, but what it fetches and writes stays in target and may be removed with it.
go_settings=${GOENV:-${XDG_CONFIG_HOME:-$HOME/.config}/go/env}
go_in_target() {
    GOENV=$go_settings XDG_CONFIG_HOME=$peers/build/go-config GOPATH=$peers/go GOCACHE=$peers/build/go go "$@"
}

# The default toolchain of a machine may be older and set to stay so; this one is what go.mod asks for.
spire() {
    local source=$root/tests/peers/spire out=$peers/spire
    unchanged "$out/built-from" "$source"/go.{mod,sum} && return
    mkdir -p "$out"
    cd "$source"
    GOTOOLCHAIN=go1.27.3 go_in_target build -mod=readonly -modcacherw -buildvcs=false -o "$out" tool
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

with_nss=1
if [ "${1-}" = --no-nss ]; then with_nss= && shift; fi
for tool in cargo go; do
    command -v "$tool" >/dev/null || { echo "install $tool first; the README says which" >&2; exit 1; }
done
go_version=$(cd / && GOTOOLCHAIN=local go_in_target env GOVERSION)
if [ "$(printf '%s\n' go1.21 "$go_version" | sort -V | head -n 1)" != go1.21 ]; then
    echo "$go_version is too old: Go 1.21 or newer fetches the one that SPIRE needs" >&2
    exit 1
fi
stage "packages" packages "${build_packages[@]}" "${peer_packages[@]}"
echo "==> real parts, side by side"
start=$SECONDS
aside quietly "kryoptic (PKCS#11 token with ML-DSA)" kryoptic
if [ -n "$with_nss" ]; then aside nss_or_not "NSS softoken"; fi
aside quietly "SPIRE server and agent" spire
aside quietly "OpenSSL 3.5" openssl35
for job in "$@"; do aside quietly "$job" bash -c "cd '$root' && $job"; done
together
echo "<== real parts: $((SECONDS - start)) s"
