# shellcheck shell=bash disable=SC2154
# Part of keyd-provision: what is said: items, a report, a refusal.

items=() actions=() details=() differences=()

# item ACTION NAME [DETAIL [DIFFERENCE]]
item() {
    actions+=("$1") items+=("$2") details+=("${3-}") differences+=("${4-}")
}

# count ACTION...: how many items have one of these actions.
count() {
    local n=0 action wanted
    for action in "${actions[@]}"; do
        for wanted; do [ "$action" != "$wanted" ] || n=$((n + 1)); done
    done
    echo "$n"
}

quote() {
    local s=${1//\\/\\\\}
    s=${s//\"/\\\"} s=${s//$'\n'/\\n} s=${s//$'\t'/\\t}
    printf '"%s"' "${s//[[:cntrl:]]/}"
}

report_json() {
    local i separator=''
    printf '{ "verb": %s, "node": %s, "changed": %s, "items": [' "$(quote "$verb")" "$(quote "$node")" "$1"
    for i in "${!items[@]}"; do
        printf '%s\n  { "action": %s, "item": %s' "$separator" "$(quote "${actions[i]}")" "$(quote "${items[i]}")"
        [ -z "${details[i]}" ] || printf ', "detail": %s' "$(quote "${details[i]}")"
        [ -z "${differences[i]}" ] || printf ', "difference": %s' "$(quote "${differences[i]}")"
        printf ' }'
        separator=,
    done
    printf '\n] }\n'
}

# report CHANGED SENTENCE
report() {
    local i
    if [ "$json" = yes ]; then report_json "$1"; return; fi
    for i in "${!items[@]}"; do
        printf '%-8s %s%s\n' "${actions[i]}" "${items[i]}" "${details[i]:+: ${details[i]}}"
        [ -z "${differences[i]}" ] || printf '%s\n' "${differences[i]}"
    done
    printf '%s\n' "$2"
}

# die CODE SENTENCE
die() {
    if [ "$json" = yes ]; then
        printf '{ "error": { "code": %s, "message": %s } }\n' "$1" "$(quote "$2")" >&2
    else
        printf 'keyd-provision: %s\n' "$2" >&2
    fi
    exit "$1"
}
