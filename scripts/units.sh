#!/usr/bin/env bash
# Checks the systemd units as they would be installed: that systemd takes them, with and without the example drop-ins,
# and that none is more exposed than it has to be. Needs no running systemd.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/bin" "$scratch/units"

# systemd wants each program to exist, so true stands in for ours.
for unit in "$root"/systemd/*.{service,socket}; do
    sed "s|=/usr/bin/\(keyd[a-z-]*\)|=$scratch/bin/\1|" "$unit" >"$scratch/units/${unit##*/}"
done
for program in keyd keyd-agent keyd-proxy; do ln -s /bin/true "$scratch/bin/$program"; done
mv "$scratch/units/keyd-proxy@.service" "$scratch/units/keyd-proxy@web.service"

# verify UNIT...: systemd only warns of a key that it does not know; here that is an error.
verify() {
    local said
    said=$(SYSTEMD_UNIT_PATH=$scratch/units: systemd-analyze verify --man=no "${@/#/"$scratch/units/"}" 2>&1) && [ -z "$said" ] && return
    echo "$said" >&2
    return 1
}

# exposure UNIT MOST: on systemd's scale from 0 to 10, of which MOST is the tenfold.
exposure() {
    local said
    said=$(systemd-analyze security --offline=true --no-pager --threshold="$2" "$scratch/units/$1" 2>&1) && { tail -n 1 <<<"$said"; return; }
    grep -v ✓ <<<"$said" >&2
    return 1
}

verify keyd.socket keyd.service keyd-agent.service keyd-proxy@web.service
for dropin in "$root"/systemd/examples/*/*.conf; do
    unit=$(basename "$(dirname "$dropin")" .d)
    mkdir "$scratch/units/$unit.d"
    cp "$dropin" "$scratch/units/$unit.d/"
    verify "$unit"
    rm -r "$scratch/units/$unit.d"
done
exposure keyd.service 8
exposure keyd-agent.service 15
exposure keyd-proxy@web.service 12
