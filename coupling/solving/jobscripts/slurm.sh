#!/bin/bash
# Written by `sobofem jobscript`. Submit it from the folder that its paths start at: sbatch FILE
#
# It requeues itself until `sobofem status` says that nothing is left. It ends for good when a mistake is yours (exit
# code 2), when too many samples fail (3), when it is cancelled, when a run ends by itself and found nothing new, or
# after @@{max_idle} restarts in a row that found nothing new.
#
#SBATCH --requeue
#SBATCH --open-mode=append
@@{directives}

@@{setup}
export OMP_NUM_THREADS=1  # parallelism is MPI's

# This job's own name, in an array this task's.
job=$SLURM_JOB_ID
[ -z "$SLURM_ARRAY_TASK_ID" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID

# Compiled forms: no other job or account touches them, and each node has its own unless this is a shared folder. A
# restart takes the same folder, and so removes what a run left that was killed. They are programs: a folder that
# another account made by that name is left alone. A container is given the folder, so that it has to be there before.
mkdir -p @@{cache}
SOBOFEM_CACHE=@@{cache}/sobofem-cache-$job
mkdir -m 700 "$SOBOFEM_CACHE" 2>/dev/null || { [ -O "$SOBOFEM_CACHE" ] && [ ! -L "$SOBOFEM_CACHE" ]; } ||
    SOBOFEM_CACHE=$(mktemp --directory @@{cache}/sobofem-cache-XXXXXXXXXX) || exit 1
export SOBOFEM_CACHE

sobofem=(@@{sobofem})
launcher=(@@{launcher})
dataset=@@{out}
notes=$dataset.restarts-$job  # how far the last run found the dataset, and how many restarts found nothing new
trap 'rm -rf "$SOBOFEM_CACHE"' EXIT

everywhere() {  # run something once on each node
    if [ "${SLURM_JOB_NUM_NODES:-1}" -eq 1 ]; then
        "$@"
    else
        srun --ntasks-per-node=1 --ntasks="$SLURM_JOB_NUM_NODES" "$@"
    fi
}

finish() {  # end for good
    rm -f "$notes"
    everywhere rm -rf "$SOBOFEM_CACHE"
    exit "$1"
}

again() {
    trap 'exit 75' TERM  # by which Slurm ends this run once the job is requeued
    echo "$(date '+%F %T') job $job: requeued, $1"
    for pause in 1 5 10 30; do
        scontrol requeue "$job" && sleep 60
        sleep "$pause"
    done
    echo "job $job could not be requeued; submit this script again, and it goes on where it was"
    exit 75
}

state() {
    squeue --noheader --states=all --jobs="$job" --format='%T %r'
}

at_the_limit() {  # Slurm ends the script; where that is for another reason, it has signalled the ranks, too
    case "$(state)" in *TimeLimit) again "a sample took longer than the grace" ;; esac
}

@@{progress}
[ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] || rm -f "$notes"  # of another job of that number
enough

everywhere sh -c 'mkdir -p "${0%/*}"; mkdir -m 700 "$0" 2>/dev/null || [ -O "$0" ]' "$SOBOFEM_CACHE" || finish 1
@@{before}trap at_the_limit TERM
"${launcher[@]}" "${sobofem[@]}" @@{generate} &
ranks=$!
while kill -0 "$ranks" 2>/dev/null; do wait "$ranks"; done  # a signal interrupts the waiting, not the ranks
wait "$ranks"
code=$?

case "$(state)" in
    RUNNING* | *TimeLimit | "") ;;
    *)
        echo "$(date '+%F %T') job $job: cancelled; submit this script again, and it goes on where it was"
        finish "$code"
        ;;
esac

decide "$code"
