# shellcheck shell=bash
# Runs targets of the Makefile one after the other, and tells at the end what each of them said last, and what failed. To be sourced
# by a bash script.
#
#   run_target NAME COMMAND...  shows and keeps what the command says
#   report WHAT                 the runners' closing lines, a line for each target, and of those that failed what tells why;
#                               fails if one of them did
#
# $logs is the directory where what they say is kept, a file for each.

results=() failed=()

# What a target leaves running may hold its output open: so that is a file, and nobody waits for its end.
run_target() {
    local name=$1 result=ok start=$SECONDS log pid
    shift
    log=$logs/$(printf '%s' "$name" | tr -c '[:alnum:]-' _).log
    mkdir -p "$logs"
    : >"$log"
    title "$name"
    "$@" >>"$log" 2>&1 &
    pid=$!
    tail --follow --lines=+1 --pid="$pid" "$log"
    wait "$pid" || { result=FAILED; failed+=("$log"); }
    results+=("$(printf '%-8s%-40s%5d s' "$result" "$name" $((SECONDS - start)))")
}

report() {
    local log
    title "$1: closing lines"
    # What a runner says last, and what it left out.
    cat "$logs"/*.log | without_colours |
        grep -ahE '^test result:|tests?, 0 failures|^  Failed: |^All [0-9]+ tests|^Failed [0-9]+ tests|^Consumers:|^Properties: |^soak: |^fuzz: |^Skipped: |[Ss]kipped|SKIPPED' |
        sort | uniq -c | sed 's/^ *1 /    /; s/^  */    /' || true
    title "$1"
    printf '%s\n' "${results[@]}"
    for log in ${failed+"${failed[@]}"}; do
        title "$1: of ${log##*/}, what failed"
        # A runner lists what failed before make says that it did; a target that failed is often a list of targets that went on.
        without_colours <"$log" | awk '
            /^make.*: \*\*\* / { for (i = NR - 30; i < NR; i++) if (i in kept) print kept[i]; print; delete kept; next }
            { kept[NR] = $0; delete kept[NR - 30] }'
        title "$1: of ${log##*/}, marked as failed"
        without_colours <"$log" | grep -aE -A 8 'FAILED|^  [0-9]+\) |\*failed\*|cancelled|^error|^failures:' | tail -n 60
        title "$1: of ${log##*/}, the end"
        without_colours <"$log" | tail -n 15
    done
    [ ${#failed[@]} -eq 0 ]
}

without_colours() {
    sed 's/\x1b\[[0-9;]*m//g'
}

title() {
    printf '\n=== %s\n' "$1"
}
