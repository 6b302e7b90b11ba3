# shellcheck shell=bash disable=SC2154
# Part of keyd-provision: the files that a node has, and what shall be in them.

write_keyd_toml() {
    local protections='"tpm-sealed"' assignments='' assignment
    [ -z "$module" ] || protections='"hsm", "hsm-wrapped"'
    cat <<EOF
# Written by keyd-provision.
socket = "$run/keyd/keyd.sock"
state_dir = "$state/keyd"

[tpm]
tcti = "$tcti"
# Another TPM in this one's place is refused.
srk_name = "$1"

EOF
    if [ -n "$module" ]; then
        for assignment in "${environment[@]}"; do
            assignments+="${assignments:+, }\"${assignment%%=*}\" = \"${assignment#*=}\""
        done
        printf '[token]\nmodule = "%s"\nlabel = "%s"\n' "$module" "$label"
        if [ "$pin_credential" = yes ]; then echo 'pin_credential = "hsm-pin"'; else printf 'pin_file = "%s"\n' "$pin_file"; fi
        printf 'environment = { %s }\n\n' "$assignments"
    fi
    cat <<EOF
# The node's own keys, and those of its workloads.
[[namespace]]
name = "keyd-agent"
protections = [$protections]

[[namespace]]
name = "workload"
protections = [$protections]

[[allow]]
users = ["$agent_user"]
namespaces = ["keyd-agent", "workload"]
operations = ["create", "list", "show", "sign", "rotate", "delete", "attest", "status"]

[[allow]]
users = ["$admin_user"]
namespaces = ["keyd-agent", "workload"]
operations = ["list", "show", "attest", "status", "reseal", "audit"]
EOF
}

write_agent_toml() {
    cat <<EOF
# Written by keyd-provision.
trust_domain = "$trust_domain"
server_address = "$server"
trust_bundle = "$etc/trust-bundle.pem"
socket = "$run/keyd-agent/agent.sock"
keyd_socket = "$run/keyd/keyd.sock"
state_dir = "$state/keyd-agent"
namespace = "keyd-agent"
workload_namespace = "workload"
EOF
}

write_dropin() {
    printf '# Written by keyd-provision.\n[Service]\nLoadCredentialEncrypted=hsm-pin:%s\n' "$etc/hsm-pin.cred"
}

# names and wanted: parallel, the files that a node has and what shall be in them.
names=() wanted=()

# want NAME: with the contents on standard input.
want() {
    local file=$scratch/wanted.${#names[@]}
    cat >"$file"
    names+=("$1") wanted+=("$file")
}

want_files() {
    local srk=$1
    names=() wanted=()
    want "$etc/keyd.toml" < <(write_keyd_toml "$srk")
    if [ -n "$module" ] && [ "$pin_credential" = yes ]; then want "$units/keyd.service.d/hsm-pin.conf" < <(write_dropin); fi
    if [ -n "$trust_domain" ]; then
        want "$etc/trust-bundle.pem" <"$trust_bundle"
        want "$etc/agent.toml" < <(write_agent_toml)
    fi
    show_node "$scratch/manifest" "$pcrs" || die "$FAILED" "$(cat "$scratch/why")"
    want "$manifest" <"$scratch/manifest"
}

compare_files() {
    local i name detail
    for i in "${!names[@]}"; do
        name=${names[i]} detail=''
        if [ ! -e "$name" ]; then
            item create "$name"
        elif cmp -s "$name" "${wanted[i]}"; then
            item keep "$name"
        else
            if [ "$name" = "$etc/keyd.toml" ] && ! grep -qxF "$(grep '^srk_name' "${wanted[i]}")" "$name"; then
                detail="it pins no storage root key, or that of another TPM, whose sealed keys this one cannot open"
            fi
            item "$([ "$force" = yes ] && echo replace || echo differs)" "$name" "$detail" "$(diff -u "$name" "${wanted[i]}" || true)"
        fi
    done
}

# put FILE MODE OWNER: standard input, whole or not at all, and on disk before it counts.
put() {
    local new
    mkdir -p "$(dirname "$1")"
    new=$(mktemp "$1.XXXXXX")
    cat >"$new"
    chown "$3" "$new"
    chmod "$2" "$new"
    sync "$new"
    mv -f "$new" "$1"
    sync "$(dirname "$1")"
}

put_files() {
    local i
    for i in "${!names[@]}"; do
        cmp -s "${names[i]}" "${wanted[i]}" || put "${names[i]}" 0644 "$(id -un)" <"${wanted[i]}"
    done
}
