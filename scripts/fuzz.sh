#!/usr/bin/env bash
# scripts/fuzz.sh [SECONDS [TARGET...]]: builds every fuzz target and runs each, or those named, for SECONDS (10). Fails on
# a crash, a hang, or too much memory; the input that did it then lies in target/fuzz/artifacts.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$root"
seconds=${1:-10}
targets=("${@:2}")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(basename -s .rs fuzz/fuzz_targets/*.rs)
out=$root/target/fuzz
triple=$(rustc --print host-tuple)

# The seeds in fuzz/corpus stay as they are; what a run finds is kept in target/fuzz/corpus for the next.
limits=(-max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -print_final_stats=1)

build() {
    if [ ! -x "$peers/bin/cargo-fuzz" ]; then
        cargo install --locked --quiet --root "$peers" cargo-fuzz@0.13.2
    fi
    # Every dependency at the version that ships.
    [ fuzz/Cargo.lock -nt Cargo.lock ] || cp Cargo.lock fuzz/Cargo.lock
    # None of this code is unsafe, so memory needs no sanitizer, and the stable compiler does.
    RUSTFLAGS="-D warnings" "$peers/bin/cargo-fuzz" build --fuzz-dir fuzz --sanitizer none --target-dir "$out"
}

fuzz() {
    local target=$1
    mkdir -p "$out/corpus/$target" "$out/artifacts/$target" "$out/tmp/$target"
    TMPDIR="$out/tmp/$target" "$out/$triple/release/$target" "${limits[@]}" -artifact_prefix="$out/artifacts/$target/" \
        "$out/corpus/$target" "fuzz/corpus/$target"
}

fuzz_all() {
    local target pids=() pid failed=0
    rm -rf "$out/tmp"
    for target in "${targets[@]}"; do
        while [ "$(jobs -pr | wc -l)" -ge "$(nproc)" ]; do sleep 0.2; done
        quietly "fuzz $target" fuzz "$target" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
    return "$failed"
}

stage "packages" packages g++ make perl pkg-config libclang-dev libtss2-dev
stage "fuzz targets" quietly "build" build
stage "fuzz for $seconds s each" fuzz_all
