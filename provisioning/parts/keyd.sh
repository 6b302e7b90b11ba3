# shellcheck shell=bash disable=SC2154
# Part of keyd-provision: a keyd of our own, to reach TPM and token through; the node's stays as it is.

scratch='' daemon=''
as_service=() # before a command: as the user that keyd runs as, so that the token's files are that user's

clean_up() {
    [ -z "$daemon" ] || { kill "$daemon" && wait "$daemon"; } 2>/dev/null || true
    [ -z "$scratch" ] || rm -rf "$scratch"
}

make_scratch() {
    # In memory, where there is such a place: PINs pass through it.
    scratch=$(mktemp -d -p "$([ -d /dev/shm ] && echo /dev/shm || echo /tmp)" keyd-provision.XXXXXX)
    trap clean_up EXIT
    trap 'exit 1' INT TERM
    install -d -m 0700 -o "$service_user" "$scratch/service"
    chmod 0711 "$scratch"
}

# start_keyd CONFIG: on $scratch/service/sock; fails with what it said.
start_keyd() {
    local end=$((SECONDS + START_SECONDS))
    install -m 0644 "$1" "$scratch/service/keyd.toml"
    "${as_service[@]}" env TSS2_LOG=all+none CREDENTIALS_DIRECTORY="$scratch/service" \
        keyd serve --config "$scratch/service/keyd.toml" >"$scratch/log" 2>&1 &
    daemon=$!
    until ask status >/dev/null 2>&1; do
        if [ $SECONDS -ge $end ] || ! kill -0 "$daemon" 2>/dev/null; then
            cat "$scratch/log" >&2
            return 1
        fi
        sleep 0.1
    done
}

ask() { keyd --socket "$scratch/service/sock" "$@"; }

# show_node FILE [PCRS]: the node's manifest into a file; fails with keyd's sentence in $scratch/why.
show_node() {
    ask node show --json --node "$node" ${2:+--pcrs "$2"} >"$1" 2>/dev/null && return
    # With --json the refusal is JSON; this is for people, or goes into JSON of our own.
    ask node show --node "$node" ${2:+--pcrs "$2"} 2>&1 >/dev/null | sed 's/^keyd: //' >"$scratch/why"
    [ -s "$scratch/why" ] || echo "keyd did not answer, and then it did: try again" >"$scratch/why"
    return 1
}

# A configuration (standard input) for this user, its socket and store in the scratch directory. The TPM's counter
# belongs to the node's own store.
keyd_toml_here() {
    printf 'socket = "%s/service/sock"\nstate_dir = "%s/service/state"\n' "$scratch" "$scratch"
    sed -e '/^socket = /d' -e '/^state_dir = /d' -e '/^counter = /d' -e 's/^\[tpm\]$/&\ncounter = false/'
    printf '[[allow]]\nusers = [%s]\noperations = ["attest", "status"]\n' "$(id -u)"
}

# With the TPM alone, nothing pinned.
start_keyd_on_tpm() {
    printf '[tpm]\ntcti = "%s"\n' "$tcti" | keyd_toml_here >"$scratch/tpm.toml"
    start_keyd "$scratch/tpm.toml" 2>"$scratch/why" || die "$FAILED" "keyd does not start: $(cat "$scratch/why")"
}
