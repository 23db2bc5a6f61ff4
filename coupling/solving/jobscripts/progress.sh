# Where the dataset is, and what follows from that; `again`, `finish` and some names are those of the script around.
look() {  # how far the dataset is, in n_done, n_failed and so on; empty where that is unknown
    local line pause name
    for pause in 0 1 5; do
        sleep "$pause"
        line=$("${sobofem[@]}" status "$dataset" --json 2>"$SOBOFEM_CACHE/why") && break
        line=
    done
    for name in done failed remaining jobs; do
        printf -v "n_$name" %s "$(sed -nE "s/.*\"$name\": ([0-9]+).*/\1/p" <<<"$line")"
    done
    [ -n "$line" ] || echo "job $job: sobofem status $dataset fails: $(cat "$SOBOFEM_CACHE/why")"
}

enough() {  # end here after too many runs in a row that found nothing new: they must not go on for ever
    look
    idle=0 before=
    found="$n_done $n_failed"
    if [ -f "$notes" ]; then
        read -r idle before <"$notes"
        [ -n "$n_done" ] || found=$before
        if [ "$found" = "$before" ]; then idle=$((idle + 1)); else idle=0; fi
    fi
    if [ "$idle" -gt @@{max_idle} ]; then
        echo "job $job: no new sample in $idle runs; look at the messages above. Does a sample fit into the time limit?"
        finish 1
    fi
    echo "$idle $found" >"$notes"
}

decide() {  # what is to be done now that the ranks have ended with an exit code
    local code=$1 new
    look
    [ "$n_done $n_failed" = "$found" ] && new= || new=yes
    if [ "$n_remaining" = 0 ] && { [ "$code" -eq 0 ] || [ -n "$new" ]; }; then  # else it may end before it has begun
        echo "$(date '+%F %T') job $job: nothing is left to do"
        finish "$((code == 3 ? 3 : 0))"
    fi
    case $code in
        2 | 3 | 130) finish "$code" ;;  # a mistake, too many failures, Ctrl-C
        75) again "asked to stop before the time limit, or a sample hung" ;;
        9 | 11 | 15 | 59 | 129 | 1[345]?)  # the short ones by mpiexec, which leaves 128 out; 59 by PETSc
            again "killed (exit code $code; 9 and 137 are often lack of memory)" ;;
    esac
    if [ "$code" -eq 0 ] && [ "${n_jobs:-0}" -gt 0 ]; then
        echo "$(date '+%F %T') job $job: other jobs compute what is left"
        finish 0
    fi
    [ -z "$new" ] || again "ended with exit code $code, and ${n_remaining:-unknown} samples are left"
    echo "$(date '+%F %T') job $job: ended with exit code $code and nothing new; ${n_remaining:-unknown} samples are left"
    finish "$((code ? code : 1))"
}
