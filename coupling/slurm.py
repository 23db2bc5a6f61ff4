"""Job scripts for Slurm that requeue themselves until a dataset is complete."""

from __future__ import annotations

from dataclasses import dataclass
import re
import shlex

from coupling.jobscript import JOB, STEPS

_PLAIN = re.compile(r"[\w.+@-]+")
_TIMES = (  # Slurm's forms of a time limit, by what their numbers count [s]
    (re.compile(r"(\d+)-(\d+)(?::(\d+))?(?::(\d+))?"), (86400, 3600, 60, 1)),
    (re.compile(r"(\d+):(\d+):(\d+)"), (3600, 60, 1)),
    (re.compile(r"(\d+)(?::(\d+))?"), (60, 1)),
)
_WAIT = 60  # how long ranks may outlive the first that ended [s]: `srun` alone waits for ever when one was killed


@dataclass(frozen=True)
class Resources:
    """What is asked of Slurm; None leaves it to the cluster.

    Attributes:
        ntasks: MPI ranks of a job, or of each task of an array.
        nodes: Nodes they are spread over.
        ntasks_per_node: Ranks on each node.
        time: Time limit of one run, in Slurm's forms: `30`, `1:30:00`, `2-12`.
        partition: Where to run.
        account: Who pays.
        array: Number of jobs that share the work.
        grace: How long before the time limit the ranks are told to stop [s].
        more: Further options of `sbatch`, such as `--mem-per-cpu=4G`.
    """

    ntasks: int = 1
    nodes: int | None = None
    ntasks_per_node: int | None = None
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    array: int | None = None
    grace: int = 120
    more: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.ntasks_per_node and self.ntasks > self.ntasks_per_node * (self.nodes or self.ntasks):
            raise ValueError(
                f"{self.ntasks} ranks do not fit on {self.nodes} nodes with {self.ntasks_per_node} each; "
                "raise --nodes or --ntasks-per-node, or lower --ntasks"
            )
        if self.time is not None and seconds(self.time) <= self.grace:
            raise ValueError(
                f"the grace of {self.grace} s leaves nothing of a time limit of {self.time} "
                f"({seconds(self.time)} s); lower --grace or raise --time (a bare number is minutes)"
            )
        for option, name in (("--partition", self.partition), ("--account", self.account)):
            _plain(option, name)
        for option in self.more:
            if not option.startswith("-") or "\n" in option:
                raise ValueError(f"--sbatch {option!r} is no option of sbatch, such as --sbatch=--mem-per-cpu=4G")


@dataclass(frozen=True)
class Job:
    """A generation as a Slurm job.

    Attributes:
        generate: Arguments of `sobofem generate`, the model first.
        out: The dataset, as `generate` names it.
        resources: What is asked of Slurm.
        name: Of the job and its log.
        launcher: What starts the ranks, with its options.
        container: Apptainer image that holds sobofem.
        setup: Lines of shell before anything else, such as `module load`.
        cache: Folder for compiled forms; node-local by default.
        max_idle: Restarts in a row without a new sample that are allowed.
    """

    generate: tuple[str, ...]
    out: str
    resources: Resources
    name: str = "sobofem"
    launcher: str = "srun --mpi=pmi2"
    container: str | None = None
    setup: tuple[str, ...] = ()
    cache: str | None = None
    max_idle: int = 3

    def __post_init__(self) -> None:
        _plain("--name", self.name)
        if not shlex.split(self.launcher):
            raise ValueError("--launcher is empty; give what starts MPI ranks here, such as 'srun --mpi=pmi2'")


def script(job: Job) -> str:
    """The text of a job script for `sbatch`, to be submitted from the folder that its paths start at."""
    values = {
        "sbatch": "\n".join(f"#SBATCH {option}" for option in _options(job)),
        "setup": "\n".join(("# The environment.", *job.setup, "")) if job.setup else "",
        "cache": shlex.quote(job.cache) if job.cache else '"${SLURM_TMPDIR:-${TMPDIR:-/tmp}}"',
        "sobofem": _program(job.container),
        "launcher": _launcher(job.launcher),
        "steps": STEPS if _is_srun(job.launcher) else "",
        "generate": shlex.join(job.generate),
        "out": shlex.quote(job.out),
        "max_idle": str(job.max_idle),
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
        "ntasks": asked.ntasks,
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
    """What starts the ranks, as words of a shell array; `mpiexec` and its like must be told how many."""
    words = shlex.split(command)
    if not _is_srun(command):
        return f'{shlex.join(words)} -n "$SLURM_NTASKS"'
    waits = any(word.startswith(("--wait", "-W")) for word in words)
    return shlex.join(words if waits else [*words, f"--wait={_WAIT}"])


def _is_srun(command: str) -> bool:
    return shlex.split(command)[0].rpartition("/")[2] == "srun"


def _plain(option: str, name: str | None) -> None:
    """Refuse what would not survive an `#SBATCH` line."""
    if name is not None and not _PLAIN.fullmatch(name):
        raise ValueError(f"{option} {name!r} has characters other than letters, digits and . _ + @ -")
