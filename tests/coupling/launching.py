"""Programs of this environment in subprocesses, under MPI or not."""

import os
from pathlib import Path
import shutil
import subprocess
import sys
import time

TOYS = Path(__file__).parent / "toys.py"
BIN = Path(sys.executable).parent
MPIEXEC = str(BIN / "mpiexec") if (BIN / "mpiexec").exists() else shutil.which("mpiexec")
LAUNCHERS = ("PMI_", "PMIX_", "OMPI_")
# A job in the background inherits deaf ears for Ctrl-C.
EARS = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
MAIN = f"{EARS}; from sobofem.coupling.start import main; main()"


def environment():
    """This one on one thread, without traces of an MPI launcher around the tests."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHERS)}
    root = str(Path(__file__).parents[2])
    return clean | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root, "COLUMNS": "200"}


def command(*arguments, ranks=0):
    """The command line of `sobofem` with these arguments; of plain Python for ranks = 0."""
    program = [sys.executable, "-c", MAIN, *map(str, arguments)]
    return [MPIEXEC, "-n", str(ranks), *program] if ranks else program


def sobofem(*arguments, ranks=0, timeout=120):
    """Run `sobofem` to its end."""
    line = command(*arguments, ranks=ranks)
    return subprocess.run(line, capture_output=True, text=True, timeout=timeout, env=environment(), check=False)


def start(*arguments, ranks=0):
    """Start `sobofem` in a process group of its own."""
    return subprocess.Popen(
        command(*arguments, ranks=ranks),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )


def python(code, *arguments):
    """Run Python code to its end."""
    line = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, env=environment(), check=False)


def wait_for(condition, *, seconds=60.0):
    """Wait until something is so; fail if it never is."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def journal_bytes(path):
    """How much is in the journals beside a dataset."""
    total = 0
    for file in path.with_name(path.name + ".parts").glob("*.journal"):
        try:
            total += file.stat().st_size
        except FileNotFoundError:
            continue
    return total


def below(process):
    """Process ids of the children of a process."""
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


def workers(process, path):
    """Process ids of the ranks that write to `path`, below a started process."""
    found, parents = [], {process.pid}
    listing = subprocess.run(
        ["ps", "-eww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = sorted((int(a), int(b), rest) for a, b, rest in (line.split(None, 2) for line in listing.splitlines()))
    for pid, parent, arguments in rows:
        if parent in parents:
            parents.add(pid)
            if "mpiexec" not in arguments and "proxy" not in arguments and str(path) in arguments:
                found.append(pid)
    return found
