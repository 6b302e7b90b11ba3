# shellcheck shell=bash disable=SC2154,SC2034
# Part of keyd-provision: the token and its PINs.

random_pin() { od -An -v -tx1 -N16 /dev/urandom | tr -d ' \n'; }

# for_service NAME: standard input as a file that keyd's user alone reads, in memory.
for_service() {
    (umask 077 && cat >"$scratch/service/$1")
    chown "$service_user" "$scratch/service/$1"
}

open_credential() {
    systemd-creds decrypt --name=hsm-pin "$etc/hsm-pin.cred" - 2>"$scratch/why" | for_service hsm-pin ||
        die "$FAILED" "$etc/hsm-pin.cred does not open on this machine: $(cat "$scratch/why")"
}

user_pin_place() { if [ "$pin_credential" = yes ]; then echo "$etc/hsm-pin.cred"; else echo "$pin_file"; fi; }

plan_token() {
    local place
    [ -n "$module" ] || return 0
    for place in "$so_pin_file" "$(user_pin_place)"; do
        if [ -e "$place" ]; then item keep "$place"; else item create "$place" "random PIN"; fi
    done
    # keyd.toml is written once the token is initialised; whether the token still opens is for verify.
    token_item=${#items[@]}
    if [ -e "$(user_pin_place)" ] && [ -e "$etc/keyd.toml" ]; then item keep "token $label"; else item create "token $label"; fi
}

# The PINs are on disk before the token has them, so that a run that was cut off can be repeated.
apply_token() {
    local place said new_pin=no made=()
    [ -n "$module" ] || return 0
    place=$(user_pin_place)
    [ -e "$so_pin_file" ] || { random_pin | put "$so_pin_file" 0600 "$(id -un)"; made+=("$so_pin_file"); }
    for_service so-pin <"$so_pin_file"
    [ -e "$place" ] || { make_user_pin "$place"; made+=("$place") new_pin=yes; }
    if [ "$pin_credential" = yes ]; then open_credential; else for_service hsm-pin <"$place"; fi
    if said=$("${as_service[@]}" keyd token init --module "$module" --label "$label" --so-pin-file "$scratch/service/so-pin" \
        --pin-file "$scratch/service/hsm-pin" "${environment[@]/#/--environment=}" 2>&1); then
        rm "$scratch/service/so-pin"
        [[ $said == *"is left as it is"* ]] || { actions[token_item]=create; return 0; }
        actions[token_item]=keep
        [ "$new_pin" = yes ] || return 0
        said="the token $label was initialised before, with a PIN that is not in $place: put it there, or take a blank token"
    fi
    # No token has the PINs that were made just now.
    rm -f -- "${made[@]}"
    die "$FAILED" "$said"
}

make_user_pin() {
    if [ "$pin_credential" = no ]; then random_pin | put "$1" 0600 "$service_user"; return; fi
    random_pin | systemd-creds encrypt --name=hsm-pin - - 2>"$scratch/why" >"$scratch/cred" ||
        die "$FAILED" "the PIN cannot be encrypted: $(cat "$scratch/why")"
    put "$1" 0600 "$(id -un)" <"$scratch/cred"
}
