"""Job scripts that go on until a dataset is complete, for Slurm, PBS, LSF, and by templates of a site's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

_TEMPLATES = Path(__file__).parent / "jobscripts"
_PLAIN = re.compile(r"[\w.+@-]+")
_TIMES = (  # Slurm's forms of a time limit, by what their numbers count [s]
    (re.compile(r"(\d+)-(\d+)(?::(\d+))?(?::(\d+))?"), (86400, 3600, 60, 1)),
    (re.compile(r"(\d+):(\d+):(\d+)"), (3600, 60, 1)),
    (re.compile(r"(\d+)(?::(\d+))?"), (60, 1)),
)
_WAIT = 60  # how long ranks may outlive the first that ended [s]: `srun` alone waits for ever when one was killed


@dataclass(frozen=True)
class Resources:
    """What is asked of the scheduler; None leaves it to the cluster."""

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
    partition: str | None = option(
        None, help="Where to run: Slurm's partition (`sinfo` lists them), the others' queue."
    )
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
        flags="--directive",
        help="Any other option of the scheduler, such as --mem-per-cpu=4G. Repeat for more.",
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
                raise ValueError(f"--directive {text!r} is no option, such as --directive=--mem-per-cpu=4G")


@dataclass(frozen=True)
class Launch:
    """How the ranks are started on the cluster."""

    max_requeues: int = option(3, help="Restarts in a row without a new sample before it gives up.", min=0)
    container: str | None = option(None, help="Apptainer image that holds sobofem, such as sobofem.sif.")
    template: str = option(
        "slurm",
        help="Whose script: slurm, pbs, lsf, or a file of your site's own, in which the marks are @@{directives}, "
        "@@{generate} and others (docs/cluster.md).",
    )
    launcher: str | None = option(
        None,
        help="What starts the ranks, with its options: `srun --mpi=pmi2` (Slurm's default), `srun --mpi=pmix`, "
        "`mpiexec` (the others'). `srun --mpi=list` says what your Slurm has.",
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
        if self.launcher is not None and not shlex.split(self.launcher):
            raise ValueError("--launcher is empty; give what starts MPI ranks here, such as 'srun --mpi=pmi2'")


@dataclass(frozen=True)
class Job:
    """A generation as a job.

    Attributes:
        generate: Arguments of `sobofem generate`, the model first.
        out: The dataset, as `generate` names it.
        resources: What is asked of the scheduler.
        launch: How its ranks are started.
        name: Of the job and its log.
        use: Files of the user's own that are run first.
        file: Where the script will be, by which it submits itself again; None if that is not known.
    """

    generate: tuple[str, ...]
    out: str
    resources: Resources
    launch: Launch = Launch()
    name: str = "sobofem"
    use: tuple[str, ...] = ()
    file: Path | None = None

    def __post_init__(self) -> None:
        _plain("--name", self.name)


@dataclass(frozen=True)
class Scheduler:
    """What schedulers differ in.

    Attributes:
        template: Name of the script's template.
        directive: What lines of options begin with.
        options: The options of a job.
        launcher: What starts ranks by default.
        tasks: Variable that holds their number, if there is one.
        scratch: Folder of the node, as a word of shell.
        submit: Command that submits a file, whose name follows.
        others: Further values of the template.
    """

    template: str
    directive: str
    options: Callable[[Job], list[str]]
    launcher: str
    submit: str
    tasks: str = ""
    scratch: str = '"${TMPDIR:-/tmp}"'
    others: Callable[[str], dict[str, str]] = lambda file: {}


def script(job: Job) -> str:
    """The text of a job script, to be submitted from the folder that its paths start at.

    Raises:
        ValueError: If the script must know its own file, and that is not given; or a template has an unknown mark.
        OSError: If there is no such template.
    """
    launch, scheduler = job.launch, SCHEDULERS.get(job.launch.template, SCHEDULERS["slurm"])
    launcher = launch.launcher or scheduler.launcher
    file = "FILE" if job.file is None else shlex.quote(str(job.file))
    values = {
        "directives": "\n".join(f"{scheduler.directive} {text}" for text in scheduler.options(job)),
        "setup": "\n".join(("# The environment.", *launch.setup, "")) if launch.setup else "",
        "cache": shlex.quote(str(launch.cache)) if launch.cache else scheduler.scratch,
        "sobofem": _program(launch.container),
        "launcher": _launcher(launcher, scheduler.tasks or str(job.resources.ranks)),
        "before": STEPS if _is_srun(launcher) else "",
        "generate": "".join(f"--use {shlex.quote(file)} " for file in job.use) + f"generate {shlex.join(job.generate)}",
        "out": shlex.quote(job.out),
        "name": job.name,
        "ranks": str(job.resources.ranks),
        "seconds": str(seconds(job.resources.time) if job.resources.time else 0),
        "grace": str(job.resources.grace),
        "max_idle": str(launch.max_requeues),
        "submit_once": f"{scheduler.submit} {file}",
        **scheduler.others(file),
    }
    values["progress"] = _Script((_TEMPLATES / "progress.sh").read_text(encoding="utf-8")).substitute(values).rstrip()
    own = launch.template not in SCHEDULERS
    text = (Path(launch.template) if own else _TEMPLATES / f"{scheduler.template}.sh").read_text(encoding="utf-8")
    if job.file is None and "@@{resubmit}" in text:
        raise ValueError("the job submits its own script again, and has to know where that is: name it by --script")
    try:
        return _Script(text).substitute(values)
    except (KeyError, ValueError) as error:
        marks = ", ".join(f"@@{{{name}}}" for name in values)
        raise ValueError(f"{launch.template} has a mark {error} that nothing stands for; there are {marks}") from error


def seconds(time: str) -> int:
    """A time limit in Slurm's forms, in seconds."""
    for form, units in _TIMES:
        if found := form.fullmatch(time):
            return sum(int(number or 0) * unit for number, unit in zip(found.groups(), units, strict=True))
    raise ValueError(
        f"--time {time} is no time limit; write minutes (90), hours:minutes:seconds (1:30:00) or days-hours (2-12)"
    )


def _slurm(job: Job) -> list[str]:
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


def _pbs(job: Job) -> list[str]:
    asked = job.resources
    nodes = asked.nodes or 1
    each = asked.ntasks_per_node or -(-asked.ranks // nodes)
    chunks = f"-l select={nodes if asked.nodes else -(-asked.ranks // each)}:ncpus={each}:mpiprocs={each}"
    named = {
        "-N": job.name,
        "-q": asked.partition,
        "-A": asked.account,
        "-J": f"0-{asked.array - 1}" if asked.array else None,
        "-l": f"walltime={_clock(asked.time)}" if asked.time else None,
    }
    return ["-j oe", "-r n", chunks, *_pairs(named), *asked.more]


def _lsf(job: Job) -> list[str]:
    asked = job.resources
    each = asked.ntasks_per_node or (-(-asked.ranks // asked.nodes) if asked.nodes else None)
    named = {
        "-J": f"{job.name}[1-{asked.array}]" if asked.array else job.name,
        "-o": f"{job.name}-%J_%I.log" if asked.array else f"{job.name}-%J.log",
        "-n": asked.ranks,
        "-R": f"'span[ptile={each}]'" if each else None,
        "-W": _clock(asked.time).rpartition(":")[0] if asked.time else None,
        "-q": asked.partition,
        "-P": asked.account,
    }
    return [*_pairs(named), *asked.more]


def _pairs(named: Mapping[str, object]) -> list[str]:
    return [f"{flag} {value}" for flag, value in named.items() if value is not None]


def _clock(time: str) -> str:
    """A time limit as hours:minutes:seconds."""
    minutes, rest = divmod(seconds(time), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}"


# A job of an array submits itself again as one that is none.
SCHEDULERS = {
    "slurm": Scheduler(
        "slurm",
        "#SBATCH",
        _slurm,
        "srun --mpi=pmi2",
        "sbatch",
        '"$SLURM_NTASKS"',
        '"${SLURM_TMPDIR:-${TMPDIR:-/tmp}}"',
    ),
    "pbs": Scheduler(
        "chain",
        "#PBS",
        _pbs,
        "mpiexec",
        "qsub",
        others=lambda file: {
            "folder": "${PBS_O_WORKDIR:-.}",
            "index": "${PBS_ARRAY_INDEX:+-$PBS_ARRAY_INDEX}",
            "resubmit": f"sed '/^#PBS -J /d' {file} | qsub",
        },
    ),
    "lsf": Scheduler(
        "chain",
        "#BSUB",
        _lsf,
        "mpiexec",
        "bsub <",
        others=lambda file: {
            "folder": "${LS_SUBCWD:-.}",
            "index": '$([ "${LSB_JOBINDEX:-0}" -eq 0 ] || echo "-$LSB_JOBINDEX")',
            "resubmit": f"sed 's/^\\(#BSUB -J [^[]*\\)\\[.*/\\1/' {file} | bsub",
        },
    ),
}
"""Schedulers by name."""


def _program(container: str | None) -> str:
    """How each rank calls sobofem, as words of a shell array."""
    if container is None:
        return "sobofem"
    return f'apptainer exec --bind "$PWD" --bind "$SOBOFEM_CACHE" --pwd "$PWD" {shlex.quote(container)} sobofem'


def _launcher(command: str, tasks: str) -> str:
    """What starts the ranks, as words of a shell array; `mpiexec` and its like need the number."""
    words = shlex.split(command)
    if not _is_srun(command):
        return f"{shlex.join(words)} -n {tasks}"
    waits = any(word.startswith(("--wait", "-W")) for word in words)
    return shlex.join(words if waits else [*words, f"--wait={_WAIT}"])


def _is_srun(command: str) -> bool:
    return shlex.split(command)[0].rpartition("/")[2] == "srun"


def _plain(flag: str, name: str | None) -> None:
    """Refuse what would not survive an `#SBATCH` line."""
    if name is not None and not _PLAIN.fullmatch(name):
        raise ValueError(f"{flag} {name!r} has characters other than letters, digits and . _ + @ -")
