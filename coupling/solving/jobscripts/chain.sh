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

@@{progress}
enough

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

decide "$code"
