#!/bin/bash
# Written by `sobofem jobscript`. Submit it from the folder that its paths start at: @@{submit_once}
#
# It submits itself again until `sobofem status` says that nothing is left. It ends for good when a mistake is yours
# (exit code 2), when too many samples fail (3), when it is cancelled, when a run ends by itself and found nothing new,
# or after @@{max_idle} runs in a row that found nothing new.
#
@@{directives}

cd "@@{folder}" || exit 1
@@{setup}
export OMP_NUM_THREADS=1  # parallelism is MPI's

# Compiled forms: no other job or account touches them. They are programs: the folder is this job's alone.
mkdir -p @@{cache}
SOBOFEM_CACHE=$(mktemp --directory @@{cache}/sobofem-cache-XXXXXXXXXX) || exit 1
export SOBOFEM_CACHE

sobofem=(@@{sobofem})
launcher=(@@{launcher})
dataset=@@{out}
job=@@{name}@@{index}
notes=$dataset.restarts-$job  # how far the last run found the dataset, and how many runs found nothing new
limit=@@{seconds} grace=@@{grace}  # of this run [s]; a limit of 0 is unknown
trap 'rm -rf "$SOBOFEM_CACHE"' EXIT

finish() {  # end for good
    rm -f "$notes"
    exit "$1"
}

again() {
    echo "$(date '+%F %T') job $job: submitted again, $1"
    @@{resubmit} || {
        echo "job $job could not be submitted again; do it by hand, and it goes on where it was"
        exit 75
    }
    exit 0
}

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

# Runs that found nothing new since the one before must not go on for ever.
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

stopped() {  # by the scheduler: at the time limit, else because somebody cancelled the job
    if [ "$limit" -gt 0 ] && [ "$SECONDS" -ge $((limit - grace)) ]; then again "a sample took longer than the grace"; fi
    echo "$(date '+%F %T') job $job: cancelled; submit this script again, and it goes on where it was"
    finish 143
}
trap stopped TERM
"${launcher[@]}" "${sobofem[@]}" @@{generate} &
ranks=$!
if [ "$limit" -gt 0 ]; then  # the launcher passes the signal on, and the ranks finish their samples
    (sleep $((limit - grace)) && kill -TERM "$ranks") >/dev/null 2>&1 &
    timer=$!
fi
while kill -0 "$ranks" 2>/dev/null; do wait "$ranks"; done
wait "$ranks"
code=$?
[ "$limit" -eq 0 ] || pkill -P "$timer" 2>/dev/null || true

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
