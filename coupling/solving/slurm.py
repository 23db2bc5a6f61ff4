"""Job scripts for Slurm that requeue themselves until a dataset is complete."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
import re
import shlex
from string import Template

from sobofem.coupling.options import option
from sobofem.coupling.options.readings import Texts


class _Script(Template):
    """A template whose own marks are `@@{...}`, since the shell's are `$`."""

    delimiter = "@@"


# Only `srun` needs it: `mpiexec` finds a new name by itself.
STEPS = """\
# MPICH names its shared memory after job and step. A requeued job would find there what a killed run left, and fail:
# let its step have another number.
for _ in $(seq $((${SLURM_RESTART_COUNT:-0} % 16))); do srun --overlap --mpi=none --nodes=1 --ntasks=1 true; done
"""

JOB = _Script("""\
#!/bin/bash
# Written by `sobofem slurm`. Submit it from the folder that its paths start at: sbatch FILE
#
# It requeues itself until `sobofem status` says that nothing is left. It ends for good when a mistake is yours (exit
# code 2), when too many samples fail (3), when it is cancelled, when a run ends by itself and found nothing new, or
# after @@{max_idle} restarts in a row that found nothing new.
#
#SBATCH --requeue
#SBATCH --open-mode=append
@@{sbatch}

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

requeue() {
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
    case "$(state)" in *TimeLimit) requeue "a sample took longer than the grace" ;; esac
}

look() {  # how far the dataset is, in n_done, n_failed and so on; empty where that is unknown
    local line pause name
    for pause in 0 1 5; do
        sleep "$pause"
        line=$("${sobofem[@]}" status "$dataset" --json 2>"$SOBOFEM_CACHE/why") && break
        line=
    done
    for name in done failed remaining jobs; do
        printf -v "n_$name" %s "$(sed -nE "s/.*\\"$name\\": ([0-9]+).*/\\1/p" <<<"$line")"
    done
    [ -n "$line" ] || echo "job $job: sobofem status $dataset fails: $(cat "$SOBOFEM_CACHE/why")"
}

# Restarts that found nothing new since the one before must not go on for ever.
look
idle=0 before=
found="$n_done $n_failed"
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] && [ -f "$notes" ]; then
    read -r idle before <"$notes"
    [ -n "$n_done" ] || found=$before
    if [ "$found" = "$before" ]; then idle=$((idle + 1)); else idle=0; fi
fi
if [ "$idle" -gt @@{max_idle} ]; then
    echo "job $job: no new sample in $idle restarts; look at the messages above. Does a sample fit into the time limit?"
    finish 1
fi
echo "$idle $found" >"$notes"

everywhere sh -c 'mkdir -p "${0%/*}"; mkdir -m 700 "$0" 2>/dev/null || [ -O "$0" ]' "$SOBOFEM_CACHE" || finish 1
@@{steps}trap at_the_limit TERM
"${launcher[@]}" "${sobofem[@]}" @@{use}generate @@{generate} &
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
look
[ "$n_done $n_failed" = "$found" ] && new= || new=yes
if [ "$n_remaining" = 0 ] && { [ "$code" -eq 0 ] || [ -n "$new" ]; }; then  # else it may end before it has begun
    echo "$(date '+%F %T') job $job: nothing is left to do"
    finish "$((code == 3 ? 3 : 0))"
fi
case $code in
    2 | 3 | 130) finish "$code" ;;  # a mistake, too many failures, Ctrl-C
    75) requeue "asked to stop before the time limit, or a sample hung" ;;
    9 | 11 | 15 | 59 | 129 | 1[345]?)  # the short ones by mpiexec, which leaves 128 out; 59 by PETSc
        requeue "killed (exit code $code; 9 and 137 are often lack of memory)" ;;
esac
if [ "$code" -eq 0 ] && [ "${n_jobs:-0}" -gt 0 ]; then
    echo "$(date '+%F %T') job $job: other jobs compute what is left"
    finish 0
fi
[ -z "$new" ] || requeue "ended with exit code $code, and ${n_remaining:-unknown} samples are left"
echo "$(date '+%F %T') job $job: ended with exit code $code and nothing new; ${n_remaining:-unknown} samples are left"
finish "$((code ? code : 1))"
""")


_PLAIN = re.compile(r"[\w.+@-]+")
_TIMES = (  # Slurm's forms of a time limit, by what their numbers count [s]
    (re.compile(r"(\d+)-(\d+)(?::(\d+))?(?::(\d+))?"), (86400, 3600, 60, 1)),
    (re.compile(r"(\d+):(\d+):(\d+)"), (3600, 60, 1)),
    (re.compile(r"(\d+)(?::(\d+))?"), (60, 1)),
)
_WAIT = 60  # how long ranks may outlive the first that ended [s]: `srun` alone waits for ever when one was killed


@dataclass(frozen=True)
class Resources:
    """What is asked of Slurm; None leaves it to the cluster."""

    ntasks: int | None = option(
        None, help="MPI ranks, each with a core of its own; --nodes times --ntasks-per-node by default.", min=1
    )
    nodes: int | None = option(None, help="Nodes to spread them over.", min=1)
    ntasks_per_node: int | None = option(None, help="Ranks on each node.", min=1)
    time: str | None = option(
        None,
        help="Time limit of one run: `90` (minutes), `1:30:00` or `2-12` (days-hours); the partition's by default. "
        "A short one does no harm, since the job requeues itself.",
    )
    partition: str | None = option(None, help="Where to run; `sinfo` lists them.")
    account: str | None = option(None, help="Who pays.")
    array: int | None = option(
        None, help="So many jobs, each with its own ranks, share the work on the dataset.", min=1
    )
    grace: int = option(
        120,
        help="Seconds before the time limit at which the ranks are told to stop. Longer than a sample takes; Slurm "
        "may tell them up to a minute earlier.",
        min=1,
    )
    more: tuple[str, ...] = option(
        tuple,
        flags="--sbatch",
        help="Any other option, such as --mem-per-cpu=4G. Repeat for more.",
        reading=Texts("OPTION"),
    )

    @property
    def ranks(self) -> int:
        """MPI ranks of a job, or of each task of an array."""
        return self.ntasks or (self.nodes or 1) * (self.ntasks_per_node or 1)

    def __post_init__(self) -> None:
        if self.ntasks_per_node and self.ranks > self.ntasks_per_node * (self.nodes or self.ranks):
            raise ValueError(
                f"{self.ranks} ranks do not fit on {self.nodes} nodes with {self.ntasks_per_node} each; "
                "raise --nodes or --ntasks-per-node, or lower --ntasks"
            )
        if self.time is not None and seconds(self.time) <= self.grace:
            raise ValueError(
                f"the grace of {self.grace} s leaves nothing of a time limit of {self.time} "
                f"({seconds(self.time)} s); lower --grace or raise --time (a bare number is minutes)"
            )
        for flag, name in (("--partition", self.partition), ("--account", self.account)):
            _plain(flag, name)
        for text in self.more:
            if not text.startswith("-") or "\n" in text:
                raise ValueError(f"--sbatch {text!r} is no option of sbatch, such as --sbatch=--mem-per-cpu=4G")


@dataclass(frozen=True)
class Launch:
    """How the ranks are started on the cluster."""

    max_requeues: int = option(3, help="Restarts in a row without a new sample before it gives up.", min=0)
    container: str | None = option(None, help="Apptainer image that holds sobofem, such as sobofem.sif.")
    launcher: str = option(
        "srun --mpi=pmi2",
        help="What starts the ranks, with its options: `srun --mpi=pmi2`, `srun --mpi=pmix`, `mpiexec`. "
        "`srun --mpi=list` says what your Slurm has.",
    )
    setup: tuple[str, ...] = option(
        tuple,
        help="A line of shell to begin with, such as 'module load gcc'. Repeat for more.",
        reading=Texts("LINE"),
    )
    cache: Path | None = option(
        None,
        help="Where compiled forms go: each job makes a folder of its own there. Node-local by default: "
        "`$SLURM_TMPDIR`, `$TMPDIR` or /tmp. Name one where those forbid to run programs.",
    )

    def __post_init__(self) -> None:
        if not shlex.split(self.launcher):
            raise ValueError("--launcher is empty; give what starts MPI ranks here, such as 'srun --mpi=pmi2'")


@dataclass(frozen=True)
class Job:
    """A generation as a Slurm job.

    Attributes:
        generate: Arguments of `sobofem generate`, the model first.
        out: The dataset, as `generate` names it.
        resources: What is asked of Slurm.
        launch: How its ranks are started.
        name: Of the job and its log.
        use: Files of the user's own that are run first.
    """

    generate: tuple[str, ...]
    out: str
    resources: Resources
    launch: Launch = Launch()
    name: str = "sobofem"
    use: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _plain("--name", self.name)


def script(job: Job) -> str:
    """The text of a job script for `sbatch`, to be submitted from the folder that its paths start at."""
    launch = job.launch
    values = {
        "sbatch": "\n".join(f"#SBATCH {text}" for text in _options(job)),
        "setup": "\n".join(("# The environment.", *launch.setup, "")) if launch.setup else "",
        "cache": shlex.quote(str(launch.cache)) if launch.cache else '"${SLURM_TMPDIR:-${TMPDIR:-/tmp}}"',
        "sobofem": _program(launch.container),
        "launcher": _launcher(launch.launcher),
        "steps": STEPS if _is_srun(launch.launcher) else "",
        "use": "".join(f"--use {shlex.quote(file)} " for file in job.use),
        "generate": shlex.join(job.generate),
        "out": shlex.quote(job.out),
        "max_idle": str(launch.max_requeues),
    }
    return JOB.substitute(values)


def seconds(time: str) -> int:
    """A time limit in Slurm's forms, in seconds."""
    for form, units in _TIMES:
        if found := form.fullmatch(time):
            return sum(int(number or 0) * unit for number, unit in zip(found.groups(), units, strict=True))
    raise ValueError(
        f"--time {time} is no time limit; write minutes (90), hours:minutes:seconds (1:30:00) or days-hours (2-12)"
    )


def _options(job: Job) -> list[str]:
    """The `#SBATCH` lines."""
    asked = job.resources
    named = {
        "job-name": job.name,
        "output": f"{job.name}-%A_%a.log" if asked.array else f"{job.name}-%j.log",
        "ntasks": asked.ranks,
        "nodes": asked.nodes,
        "ntasks-per-node": asked.ntasks_per_node,
        "time": asked.time,
        "partition": asked.partition,
        "account": asked.account,
        "array": f"0-{asked.array - 1}" if asked.array else None,
        "signal": f"TERM@{asked.grace}",
    }
    return [*(f"--{key}={value}" for key, value in named.items() if value is not None), *asked.more]


def _program(container: str | None) -> str:
    """How each rank calls sobofem, as words of a shell array."""
    if container is None:
        return "sobofem"
    return f'apptainer exec --bind "$PWD" --bind "$SOBOFEM_CACHE" --pwd "$PWD" {shlex.quote(container)} sobofem'


def _launcher(command: str) -> str:
    """What starts the ranks, as words of a shell array; `mpiexec` and its like need the number."""
    words = shlex.split(command)
    if not _is_srun(command):
        return f'{shlex.join(words)} -n "$SLURM_NTASKS"'
    waits = any(word.startswith(("--wait", "-W")) for word in words)
    return shlex.join(words if waits else [*words, f"--wait={_WAIT}"])


def _is_srun(command: str) -> bool:
    return shlex.split(command)[0].rpartition("/")[2] == "srun"


def _plain(flag: str, name: str | None) -> None:
    """Refuse what would not survive an `#SBATCH` line."""
    if name is not None and not _PLAIN.fullmatch(name):
        raise ValueError(f"{flag} {name!r} has characters other than letters, digits and . _ + @ -")
