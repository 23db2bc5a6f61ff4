"""`sobofem doctor`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
import ctypes
from dataclasses import dataclass
import importlib.metadata
import os
from pathlib import Path
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile

from rich.markup import escape
from rich.table import Table
import typer

from sobofem.coupling.commands import command
from sobofem.coupling.display import report_console

TIMEOUT = 120.0  # of each program that is started [s]
FREE_SPACE = 1e9  # below which a disk is called full [bytes]
_SAY_SIZE = r"import os; from mpi4py import MPI; os.write(1, b'ranks %d\n' % MPI.COMM_WORLD.size)"
_LAUNCHED = ("PMI_", "PMIX_", "OMPI_", "HYDI_", "MPI_LOCAL", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP")
"""How variables begin by which a process that a launcher started would be taken for one of its ranks."""


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        subject: What was looked at.
        found: What is there.
        remedy: What to do, if anything is to be done.
        broken: Whether something can't work as it is.
    """

    subject: str
    found: str
    remedy: str = ""
    broken: bool = False


@command(needs_mpi=False)
def doctor() -> None:
    """Examine the installation: versions, MPI, launcher, compiler, cache, threads, GPU; and how to fix what is wrong.

    Needs neither FEniCSx nor PyTorch; what is missing is named with what it is for. Starts programs to see whether they
    work, none for longer than two minutes. Exit code 1 if something is broken.

    Example: sobofem doctor
    """
    table = Table("", "what", "found", "what to do")
    broken = False
    for check in CHECKS:
        for finding in _examined(check):
            mark = "[red]broken[/]" if finding.broken else "[yellow]note[/]" if finding.remedy else "[green]ok[/]"
            table.add_row(mark, *map(escape, (finding.subject, finding.found, finding.remedy)))
            broken |= finding.broken
    report_console().print(table)
    if broken:
        raise typer.Exit(1)


def _examined(check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """What a check finds; a check that fails is a finding, so that the others are made."""
    try:
        yield from check()
    except Exception as error:
        name = check.__name__.replace("_", " ")
        yield Finding(name, f"{type(error).__name__}: {error}", "this should not happen; please report it", broken=True)


def packages() -> Iterator[Finding]:
    """Python, and whether installed versions are those that sobofem asks for, by its own metadata."""
    from packaging.requirements import Requirement

    yield Finding("Python", f"{platform.python_version()}, {sys.executable}")
    yield Finding("sobofem", f"{importlib.metadata.version('sobofem')}, {Path(__file__).parents[2]}")
    for text in importlib.metadata.requires("sobofem") or ():
        wanted = Requirement(text)
        core = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
        version = _version(wanted.name)
        if version is None and core:
            yield Finding(wanted.name, "missing", f"pip install '{wanted.name}{wanted.specifier}'", broken=True)
        elif version and not wanted.specifier.contains(version, prereleases=True):
            yield Finding(
                wanted.name,
                f"{version}, but {wanted.specifier} is needed",
                f"pip install '{wanted.name}{wanted.specifier}'",
                broken=core,
            )
        elif version and core:
            yield Finding(wanted.name, version)


def hdf5() -> Iterator[Finding]:
    """Whether h5py can write and read, in memory."""
    code = (
        "import h5py, sys\n"
        "with h5py.File('x', 'w', driver='core', backing_store=False) as f:\n"
        "    f['a'] = [1.0, 2.0]; assert f['a'][1] == 2.0\n"
        "print(h5py.version.hdf5_version)"
    )
    done = _python(code)
    if done.returncode == 0:
        yield Finding("HDF5", done.stdout.strip())
    else:
        yield Finding("HDF5", _last_line(done), "pip install --force-reinstall h5py", broken=True)


def finite_elements() -> Iterator[Finding]:
    """Whether FEniCSx can be imported, its version and kind of numbers."""
    version = _version("dolfinx-solver-real") or _version("fenics-dolfinx")
    code = (
        "import sobofem.fem, dolfinx, petsc4py.PETSc as P\n"
        "print(dolfinx.__version__, P.Sys.getVersion()[0], P.Sys.getVersion()[1], P.ScalarType.__name__)"
    )
    done = _python(code)
    if done.returncode != 0:
        if version is None and "No module named" in done.stderr:
            remedy = "training alone needs none; to generate: pip install 'sobofem[fem]'"
            yield Finding("FEniCSx", "missing", remedy)
        else:
            yield Finding("FEniCSx", _last_line(done), "pip install --force-reinstall 'sobofem[fem]'", broken=True)
        return
    dolfinx, *petsc, numbers = done.stdout.split()
    found = f"DOLFINx {dolfinx}, PETSc {'.'.join(petsc)}, {numbers}"
    if not dolfinx.startswith("0.11."):
        yield Finding("FEniCSx", found, "sobofem needs DOLFINx 0.11", broken=True)
    elif numbers != "float64":
        yield Finding("FEniCSx", found, "sobofem needs a PETSc of real numbers in double precision", broken=True)
    else:
        yield Finding("FEniCSx", found)


def message_passing() -> Iterator[Finding]:
    """Which MPI mpi4py has, and whether the launchers that are found start ranks that know each other."""
    if _version("mpi4py") is None:
        yield Finding("MPI", "mpi4py is missing", "training alone needs none; else: pip install 'sobofem[fem]'")
        return
    done = _python("from mpi4py import MPI; print(MPI.Get_library_version().strip().splitlines()[0])")
    if done.returncode != 0:
        yield Finding(
            "MPI", _last_line(done), "pip install mpich, or load the module of the cluster's MPI", broken=True
        )
        return
    yield Finding("MPI", " ".join(done.stdout.split()))
    launcher = _beside_python("mpiexec") or shutil.which("mpiexec")
    if launcher is None:
        yield Finding("mpiexec", "missing", "pip install mpich; several ranks need a launcher")
    else:
        yield _launched("mpiexec", [launcher, "-n", "2"])
    if srun := shutil.which("srun"):
        if "SLURM_JOB_ID" in os.environ:
            yield _launched("srun", [srun, "--mpi=pmi2", "--overlap", "-n", "2"])
        else:
            yield Finding("srun", srun, "not tried outside of a job: repeat this in `salloc -n 2`")


def _launched(name: str, words: list[str]) -> Finding:
    done = _run([*words, sys.executable, "-c", _SAY_SIZE])
    said = [line for line in done.stdout.splitlines() if line.startswith("ranks")]
    if said == ["ranks 2"] * 2:
        return Finding(name, f"{words[0]} starts ranks that know each other")
    if said == ["ranks 1"] * 2:
        remedy = (
            "it belongs to another MPI than mpi4py: take the launcher of this environment, or build mpi4py against the "
            "launcher's MPI (pip install --no-binary mpi4py mpi4py)"
        )
        if name == "srun":
            remedy = "srun and this MPI don't know each other: try another of `srun --mpi=list`, or mpiexec in the job"
        return Finding(name, f"{words[0]} starts ranks that are each alone", remedy, broken=True)
    return Finding(name, _last_line(done), f"{shlex.join(words)} hostname: does that work?", broken=True)


def compiled_forms() -> Iterator[Finding]:
    """The folder of compiled forms, its rights and space, and the compiler, by what it makes there."""
    if _version("mpi4py") is None or not (_version("dolfinx-solver-real") or _version("fenics-dolfinx")):
        return
    done = _python("from sobofem.fem.assembly.compilation import cache_directory; print(cache_directory())")
    if done.returncode != 0:
        yield Finding("cache", _last_line(done), "name another folder of your own by $SOBOFEM_CACHE", broken=True)
        return
    folder = Path(done.stdout.strip().splitlines()[-1])
    if "are not kept" in done.stderr:  # a temporary one, of that process
        yield Finding("cache", _last_line(done), "name a folder by $SOBOFEM_CACHE: forms are compiled at each start")
        folder = Path(tempfile.gettempdir())
    else:
        yield _space("cache", folder)
    yield _compiler(folder)


def _space(subject: str, folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    found = f"{folder}, {free / 1e9:.1f} GB free"
    return Finding(subject, found, "make room, or name another folder by $SOBOFEM_CACHE" if free < FREE_SPACE else "")


def _compiler(folder: Path) -> Finding:
    words = shlex.split(os.environ.get("CC") or "cc")
    if shutil.which(words[0]) is None:
        remedy = "unset CC" if "CC" in os.environ else "install gcc or clang (build-essential, or `module load gcc`)"
        return Finding("compiler", f"there is no {words[0]}", remedy, broken=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="doctor-") as place:
        source, library = Path(place) / "answer.c", Path(place) / "answer.so"
        source.write_text("#include <math.h>\ndouble answer(double x) { return sqrt(x); }\n")
        done = _run([*words, "-shared", "-fPIC", str(source), "-o", str(library), "-lm"])
        if done.returncode != 0:
            return Finding("compiler", _last_line(done), "does it compile a small program? libc6-dev too?", broken=True)
        try:
            answer = ctypes.CDLL(str(library)).answer
        except OSError as error:
            remedy = "is the folder mounted noexec? Name another by $SOBOFEM_CACHE"
            return Finding("compiler", f"what it made can't be loaded: {error}", remedy, broken=True)
    answer.restype, answer.argtypes = ctypes.c_double, [ctypes.c_double]
    return Finding("compiler", f"{shutil.which(words[0])} compiles, and what it makes is loaded")


def threads() -> Iterator[Finding]:
    """Threads of each process against the cores that it may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    setting = os.environ.get("OMP_NUM_THREADS", "")  # the program's start sets it to 1 where nobody has
    excess = not setting.isdigit() or int(setting) > cores
    remedy = "more threads than cores wait for each other: export OMP_NUM_THREADS=1" if excess else ""
    yield Finding("threads", f"{setting or 'any number'} a process (OMP_NUM_THREADS), on {cores} cores", remedy)


def training() -> Iterator[Finding]:
    """PyTorch, and whether a GPU that is there can be used."""
    if _version("torch") is None:
        yield Finding("PyTorch", "missing", "needed to train and to use surrogates: pip install 'sobofem[surrogate]'")
        return
    code = (
        "import torch\n"
        "print(torch.__version__, torch.version.cuda or 'none')\n"
        "if torch.cuda.is_available():\n"
        "    torch.ones(2, device='cuda').double().sum().item(); print(torch.cuda.get_device_name(0))"
    )
    done = _python(code)
    if done.returncode != 0:
        yield Finding("PyTorch", _last_line(done), "pip install --force-reinstall torch, or device='cpu'", broken=True)
        return
    versions, *device = done.stdout.strip().splitlines()
    version, cuda = versions.split()
    yield Finding("PyTorch", version)
    if device:
        yield Finding("GPU", device[0])
    elif shutil.which("nvidia-smi") is None:
        yield Finding("GPU", "none; training runs on the CPU")
    elif cuda == "none":
        yield Finding(
            "GPU", "there is a driver, but this PyTorch knows no CUDA", "pip install torch of the index's default"
        )
    else:
        remedy = "the driver may be older than this CUDA, or no GPU was given to the job (`nvidia-smi`)"
        yield Finding("GPU", f"there is a driver, but PyTorch (CUDA {cuda}) finds no GPU", remedy)


def scratch() -> Iterator[Finding]:
    """Room for temporary files."""
    folder = Path(tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    yield Finding(
        "temporary files",
        f"{folder}, {free / 1e9:.1f} GB free",
        "" if free > FREE_SPACE else "make room, or set TMPDIR",
    )


CHECKS = (packages, hdf5, finite_elements, message_passing, compiled_forms, scratch, threads, training)
"""What is looked at, in this order."""


def _version(package: str) -> str | None:
    """The version of an installed package; it is not imported."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _beside_python(program: str) -> str | None:
    return shutil.which(program, path=str(Path(sys.executable).parent))


def _python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own: what it imports may end that."""
    return _run([sys.executable, "-c", code])


def _run(words: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_LAUNCHED)}
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT, env=environment, errors="replace")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 124, "", f"no answer within {TIMEOUT:g} s")
    except OSError as error:
        return subprocess.CompletedProcess(words, 127, "", str(error))


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    """What a program said at last, of its errors or else of its output."""
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {done.returncode}, without a word"
