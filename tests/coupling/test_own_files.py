"""Files of the user's own, run before a command: what they register is known to all commands."""

from pathlib import Path
import re

from launching import TOYS, sobofem
import numpy as np
import pytest

from sobofem.coupling import Dataset, commands
from sobofem.coupling.design import make_design, register

OWN = f"""
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

sys.path.append({str(TOYS.parent)!r})
from toys import smooth
from sobofem.coupling.commands import command
from sobofem.coupling.design import Design, register
from sobofem.coupling.study import Call, Stage, Study

runs = globals().get("runs", 0) + 1


@register("corners")
def corners(bounds, N, *, seed):
    box = np.asarray(bounds)
    return np.random.default_rng(seed).choice([0, 1], (N, len(box))) * np.ptp(box, axis=1) + box[:, 0]


@command(needs_mpi=False)
def weigh(data: Annotated[Path, typer.Argument(metavar="DATA")], factor: float = 1.0) -> None:
    '''Weigh a dataset.

    Example: sobofem weigh plate.h5
    '''
    from sobofem.coupling import Dataset

    typer.echo(f"it weighs {{factor * len(Dataset.open(data))}}, run {{runs}}")


class Weighed:
    name = "weighed"

    def stage(self, files):
        return Stage(self.name, Call(weigh, {{"data": files.data, "factor": 2.0}}), (files.data,))


study = Study("own.py:smooth", Design("corners", 4, seed=1), purposes=(Weighed(),))
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A file of one's own in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)


def test_a_design_and_a_command_of_a_file_work_after_use_and_only_then(here, own):
    wanted = ("generate", "own.py:smooth", "--design", "corners", "--samples", 4, "--out", "a.h5")
    with pytest.raises(ValueError, match="no design is called 'corners'"):
        make_design("corners", [[0, 1]], 2, 0)
    assert here("weigh", "a.h5")[0] == 2
    assert here("--use", "own.py", *wanted)[0] == 0
    data = Dataset.open("a.h5")
    assert data.provenance["design"] == "corners" and np.isin(data.x, data.bounds).all() and len(data) == 4
    code, text, _ = here("--use", "own.py", "weigh", "a.h5", "--factor", 3)
    assert code == 0 and text == "it weighs 12.0, run 1\n"
    code, text, _ = here("--use", "own.py", "--help")
    assert code == 0 and re.search(r"weigh +Weigh a dataset.", text)
    assert "Example: sobofem weigh" in here("--use", "own.py", "weigh", "--help")[1]


@pytest.mark.slow
def test_a_dataset_of_a_design_that_nothing_has_registered_says_what_to_give():
    done = sobofem("generate", f"{TOYS}:smooth", "--design", "corners", "--out", "none.h5")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.endswith("; give the file that defines it: sobofem --use FILE ...\n")


def test_a_study_says_the_files_it_was_given_and_calls_commands_of_the_user(here, own, tmp_path):
    code, text, errors = here("--use", "own.py", "run", "own.py", "--dry")
    assert code == 0, errors
    lines = text.splitlines()
    assert lines[0].startswith(f"$ sobofem --use {tmp_path / 'own.py'} generate own.py:smooth --out own/data.h5")
    assert "--design corners" in lines[0]
    assert lines[-1] == f"$ sobofem --use {tmp_path / 'own.py'} weigh own/data.h5 --factor 2.0"
    assert here("--use", "own.py", "run", "own.py", "--only", "generate")[0] == 0
    code, text, errors = here("--use", "own.py", "run", "own.py", "--only", "weighed")
    assert code == 0 and "it weighs 8.0, run 1" in text
    assert "(done) $ sobofem" in here("--use", "own.py", "run", "own.py", "--only", "weighed")[1]
    Path("own.py").write_text(OWN + "\nmore = 1\n")
    assert "(done)" not in here("--use", "own.py", "run", "own.py", "--only", "weighed", "--dry")[1]


@pytest.mark.slow
def test_a_program_with_a_file_of_the_user_is_supervised_and_works_on_ranks(own):
    wanted = ("generate", "own.py:smooth", "--design", "corners", "--samples", 4, "--out", "a.h5")
    done = sobofem("--use", "own.py", *wanted, ranks=2)
    assert done.returncode == 0, done.stderr
    done = sobofem("--use=own.py", "weigh", "a.h5", ranks=2)
    assert done.returncode == 0 and done.stdout.count("it weighs 4.0") == 1
    Path("ends.py").write_text("import ctypes\nctypes.CDLL(None)._exit(0)\n")
    assert sobofem("--use", "ends.py", "models").returncode != 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1 +", "own.py, line 1 is no Python code"),
        ("\nraise ValueError('so not')", "own.py, line 2: ValueError: so not"),
        ("import sys\nsys.exit(0)", "own.py, line 2"),
        ("import nowhere_to_be_found", "own.py, line 1: No module named 'nowhere_to_be_found'"),
    ],
)
def test_a_file_that_fails_is_named_by_its_line(here, own, text, message):
    Path("own.py").write_text(text)
    code, _, errors = here("--use", "own.py", "models")
    assert code == 2 and message in errors and errors.count("\n") == 1


def test_what_is_no_python_file_is_refused(here, own):
    assert "there is no file none.py" in here("--use", "none.py", "models")[2]
    assert "a.h5 is no Python file; give one whose name ends in .py" in here("--use", "a.h5", "models")[2]


def test_a_job_script_uses_the_files(here, own, tmp_path):
    wanted = ("jobscript", "own.py:smooth", "--out", "a.h5", "--", "--design", "corners")
    code, text, errors = here("--use", "own.py", *wanted)
    assert code == 0, errors
    assert f'"${{sobofem[@]}}" --use {tmp_path / "own.py"} generate own.py:smooth' in text


def test_names_of_others_are_not_taken(own):
    with pytest.raises(ValueError, match=r"design name 'sobol' belongs to sobofem.coupling.design"):
        register("sobol")(lambda bounds, N, *, seed: None)

    def info(file: Path) -> None:
        """Another one."""

    with pytest.raises(ValueError, match="there is a command 'info' already"):
        commands.command()(info)

    register("short")(lambda bounds, N, *, seed: np.zeros((1, 1)))
    with pytest.raises(ValueError, match=r"design 'short' made points \(1, 1\), expected \(3, 2\)"):
        make_design("short", [[0, 1], [0, 1]], 3, 0)
