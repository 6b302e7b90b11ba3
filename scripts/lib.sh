# shellcheck shell=bash
# Sourced by the other scripts: stages with their times, and packages asked for once.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
peers=$root/target/peers
logs=$root/target/logs
mkdir -p "$peers" "$logs"

# end_below PID: ends whatever a process has started.
end_below() {
    local children child
    read -ra children -d '' < <(cat "/proc/$1"/task/*/children 2>/dev/null) || true
    for child in "${children[@]}"; do
        end_below "$child"
        kill "$child" 2>/dev/null || true
    done
}

# What runs in the background does not hear of Ctrl-C by itself.
trap 'trap - INT TERM; end_below $$; exit 130' INT TERM

# stage NAME COMMAND...: runs it, says how long it took, and on failure shows its last words.
stage() {
    local name=$1 start=$SECONDS
    shift
    echo "==> $name"
    if "$@"; then
        echo "<== $name: $((SECONDS - start)) s"
    else
        local code=$?
        echo "<== $name FAILED after $((SECONDS - start)) s" >&2
        return "$code"
    fi
}

# quietly NAME COMMAND...: the same with the output in target/logs, whose end is shown on failure.
quietly() {
    local name=$1 start=$SECONDS log
    log=$logs/$(tr -c 'a-z0-9\n' - <<<"${1,,}").log
    shift
    # Not in the condition itself, where bash would let a function go on after a command that failed.
    "$@" >"$log" 2>&1 </dev/null &
    if wait $!; then
        echo "    $name: $((SECONDS - start)) s"
    else
        local code=$?
        echo "    $name FAILED after $((SECONDS - start)) s; the end of $log:" >&2
        tail -n 25 "$log" >&2
        return "$code"
    fi
}

# aside HOW NAME COMMAND...: `HOW NAME COMMAND...` in the background, until `together`.
declare -A aside=()
aside() { "$@" & aside[$!]=$2; }

# together: waits for what was set aside, says every 20 s what is still at work, and fails if something failed.
together() {
    local start=$SECONDS failed=0 pid names
    while [ -n "$(jobs -pr)" ]; do
        sleep 1
        if [ $(((SECONDS - start) % 20)) -eq 19 ]; then
            names=
            for pid in $(jobs -pr); do names+="${names:+, }${aside[$pid]}"; done
            echo "    ... after $((SECONDS - start)) s still at work: $names"
        fi
    done
    for pid in "${!aside[@]}"; do wait "$pid" || failed=1; done
    return "$failed"
}

# packages NAME...: installs those that are missing, as root or by sudo.
packages() {
    local missing=() name sudo=()
    for name in "$@"; do
        dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || { echo "as root: apt-get install ${missing[*]}" >&2; return 1; }
        echo "    sudo is for packages alone: ${missing[*]}"
        sudo=(sudo)
    fi
    "${sudo[@]}" apt-get update -qq
    if ! "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >"$logs/apt.log" 2>&1; then
        tail -n 20 "$logs/apt.log" >&2
        return 1
    fi
}

# unchanged MARK FILE...: whether a part was built from exactly these files.
fingerprint() { cat "$@" | sha256sum | cut -d' ' -f1; }
unchanged() {
    local mark=$1
    shift
    [ -e "$mark" ] && [ "$(cat "$mark")" = "$(fingerprint "$@")" ]
}
