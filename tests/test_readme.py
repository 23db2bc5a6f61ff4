"""Commands and snippets of the README and of the tutorials run, in order, in one folder, unless excused."""

from ast import literal_eval
from functools import partial
import json
import os
from pathlib import Path
import re
import runpy
import shlex
import subprocess
import sys

from contexts import parts_forgotten
import numpy as np
import pytest

from sobofem import surrogate
from sobofem.coupling import Dataset, FieldData
from sobofem.surrogate import load

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(?P<excuse><!--[^\n]*-->\n)?```(?P<language>bash|python)\n(?P<text>.*?)```", re.DOTALL)
EXCUSES = ("run by continuous integration", "an excerpt", "needs other package sources than the tests have")


def blocks(page="README.md"):
    return list(BLOCK.finditer((ROOT / page).read_text()))


@pytest.mark.parametrize("page", ["README.md", "docs/journeys.md", "docs/own_problem.md", "docs/installing.md"])
def test_excused_blocks_give_a_known_reason(page):
    for block in blocks(page):
        if block["excuse"]:
            assert any(excuse in block["excuse"] for excuse in EXCUSES)


@pytest.mark.parametrize("page", ["docs/own_problem.md", "docs/problems.md", "docs/learned_laws.md"])
def test_excerpts_are_some(page):
    found = [block for block in blocks(page) if "an excerpt" in (block["excuse"] or "")]
    assert found
    for block in found:
        source = re.search(r"an excerpt of (\S+)", block["excuse"])[1]
        lines = {line.strip() for line in (ROOT / source).read_text().splitlines()}
        assert all(line.strip() in lines for line in block["text"].splitlines())


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))])
def test_linked_files_exist(page):
    file = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)\)", file.read_text()):
        made = target.startswith(("gallery/", "reference/", "project/"))  # by `make docs`, which checks links to them
        assert target.startswith("http") or made or (file.parent / target).exists(), target


@pytest.mark.slow
def test_job_scripts_of_the_walkthrough_are_written(tmp_path):
    """The rest of that page needs a cluster, or is run by `make test-cluster`."""
    (tmp_path / "plate.py").touch()
    (tmp_path / "sobofem.sif").touch()
    program = f"#!/bin/bash\nexec {sys.executable} -c 'from sobofem.coupling.cli import main; main()' \"$@\"\n"
    (tmp_path / "sobofem").write_text(program)
    (tmp_path / "sobofem").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    text = "".join(block["text"] for block in blocks("docs/cluster.md")).replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith("sobofem jobscript")]
    assert len(lines) == 4
    for line in lines:
        run = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
    assert {file.name for file in tmp_path.glob("*.sh")} == {"plate.sh", "array.sh", "groups.sh"}
    assert (tmp_path / "plate.pbs").exists()


WAVE = """
import numpy as np


class Wave:
    parameters, responses, bounds = ("a", "b"), ("q",), np.array([[-1.0, 1.0], [0.0, 2.0]])

    def evaluate(self, x, *, jacobian=True):
        return np.array([np.sin(x[0]) * x[1]]), np.array([[np.cos(x[0]) * x[1], np.sin(x[0])]])
"""


@pytest.fixture
def shell(here, tmp_path, monkeypatch):
    """Runs blocks of a page in the test's folder: commands of `sobofem` on one rank and snippets in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    program = Path("program.py")

    def run_block(text, language):
        if language == "python":
            program.write_text(text)
            return runpy.run_path(str(program))
        for command in commands(text):
            name, *arguments = shlex.split(command)
            if name != "sobofem":
                run(command, "bash", tmp_path)
                continue
            with parts_forgotten():
                code, output, errors = here(*arguments)
            assert code == 0, f"{command}\n{output}\n{errors}"
        return {}

    return run_block


def commands(text):
    """The commands of a block; lines are joined that end in a backslash or within a quotation."""
    command = ""
    for line in text.replace("\\\n", " ").splitlines():
        command += line
        if command.count("'") % 2:
            command += "\n"
        else:
            yield command
            command = ""


def run(text, language, folder, *, ranks=1):
    """Run a command or a snippet in a folder, and return what it prints."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    shell = ["bash", "-euo", "pipefail", "-c"] if language == "bash" else [sys.executable, "-c"]
    spread = ["mpiexec", "-n", str(ranks)] if ranks > 1 else []
    done = subprocess.run([*spread, *shell, text], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def cheaper(text, changes):
    """A snippet with smaller numbers in the places of its own."""
    for old, new in changes.items():
        assert text.count(old) == 1, f"{old!r} in\n{text}"
        text = text.replace(old, new)
    return text


BRIEF = (surrogate.Solved(units=16, members=1, iterations=20), surrogate.Kriging(starts=(-7.0,), iterations=20))


def fewer(text):
    """A snippet with eight samples, a tenth of its draws, and brief training."""
    text = text.replace("sobofem stream ", f"sobofem --use {ROOT / 'tests/coupling/brief.py'} stream ")
    text = text.replace("--solves 16 --out uncertainty", "--solves 16 --samples 1024 --out uncertainty")
    text = text.replace("--out calibration", "--draws 50 --tune 50 --out calibration")
    return re.sub(r'(--samples |"sobol", )(32|48|64)\b', r"\g<1>8", text)


@pytest.mark.slow
def test_the_bar_of_the_page_on_problems_cools_to_its_steady_state(shell):
    """After a day k (end - wall) / length = transfer (air - end), and the wall is as cold as it is held."""
    block = next(block for block in blocks("docs/problems.md") if "transfer" in block["text"])
    found = shell(block["text"], "python")
    end = (15.0 / 0.1 * 300.0 + 50.0 * 290.0) / (15.0 / 0.1 + 50.0)
    assert found["response"][0] == pytest.approx((300.0 + end) / 2, abs=0.1)  # of the 301 K that it has lost
    assert found["jacobian"][0][1] == pytest.approx((1 + 150.0 / 200.0) / 2, rel=1e-3)


@pytest.mark.slow
def test_the_cell_of_the_page_on_problems_whose_sides_do_not_match_has_the_stresses_that_its_energy_says(shell):
    block = next(block for block in blocks("docs/problems.md") if "composite_cell(mesh" in block["text"])
    found = shell(block["text"], "python")
    np.testing.assert_allclose(found["jacobian"][0][:3], found["response"][1:], rtol=1e-8)  # Hill and Mandel


@pytest.mark.slow
def test_a_surrogate_with_no_settings_is_made_as_its_page_says(shell, capsys):
    Path("ripple.py").write_text(WAVE)
    shell("sobofem generate ripple.py:Wave --samples 8 --seed 1 --out train.h5", "bash")
    block, *_ = blocks("docs/surrogates.md")
    shell(block["text"], block["language"])
    shares = literal_eval(capsys.readouterr().out)
    assert np.sum([*shares.values()]) == pytest.approx(1.0)


@pytest.mark.slow
def test_streaming_by_command_is_taken_up_by_the_script_on_the_same_page(tmp_path):
    """With a closed form in the place of the plate, whose solves the README's commands do."""
    (tmp_path / "ripple.py").write_text(WAVE)
    command, script = blocks("docs/streaming.md")
    plate = "sobofem.fem.library.plate_with_hole"
    small = {
        "sobofem stream plate_with_hole": f"sobofem --use {ROOT / 'tests/coupling/brief.py'} stream ripple.py:Wave",
        "-n 3": "-n 2",
        "--samples 64": "--samples 12 --width 3 --depth 1",
    }
    run(cheaper(command["text"], small), "bash", tmp_path)
    assert load(tmp_path / "plate.safetensors").provenance["samples"] == 12
    small = {
        f"from {plate} import": "from ripple import Wave as",
        '"sobol", 64': '"sobol", 14',
        "MLP(48, 3)": "MLP(3, 1)",
    }
    run(cheaper(script["text"], small), "python", tmp_path, ranks=2)
    assert load(tmp_path / "plate.safetensors").provenance["samples"] == 14


@pytest.mark.slow
def test_ensembles_of_fields_are_made_read_and_exchanged_as_their_page_says(shell):
    pytest.importorskip("meshio")
    page = (ROOT / "docs/fields.md").read_text()
    section = page[page.index("## Ensembles of fields") :].partition("\n## ")[0]
    found = {}
    for block in BLOCK.finditer(section):
        found = shell(block["text"].replace("--samples 64", "--samples 12"), block["language"]) or found
    made, read = FieldData.open("block.h5"), FieldData.open("imported.h5")
    np.testing.assert_allclose(read.outputs[:], made.outputs[:], rtol=1e-12)
    np.testing.assert_allclose(found["imported"].x, np.asarray(Dataset.open("block.h5").x), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # of eight samples
@pytest.mark.usefixtures("labels_believed")
def test_commands_and_snippets_run_in_order(shell, monkeypatch):
    Path("examples").symlink_to(ROOT / "examples")
    monkeypatch.setattr(surrogate, "fit", partial(surrogate.fit, families=BRIEF))
    checked = [block for page in ("README.md", "docs/journeys.md") for block in blocks(page) if not block["excuse"]]
    assert len(checked) >= 7
    for block in checked:
        shell(fewer(block["text"]), block["language"])
    for made in ("plate.h5", "train.h5", "plate.safetensors", "report/values.png"):
        assert Path(made).is_file(), made


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # of eight samples
@pytest.mark.usefixtures("labels_believed")
def test_a_stranger_comes_from_the_landing_page_to_the_optimum_of_a_problem_of_their_own(shell, monkeypatch):
    """The demo and the journeys, on the same way, have tests of their own."""
    Path("examples").symlink_to(ROOT / "examples")
    monkeypatch.setattr(surrogate, "fit", partial(surrogate.fit, families=BRIEF))
    landing = (ROOT / "docs/index.md").read_text()
    first, *_ = blocks("docs/index.md")
    demo, doctor = first["text"].splitlines()
    assert demo.startswith("make demo")
    shell(doctor.partition("#")[0], "bash")
    (way,) = (line for line in landing.splitlines() if line.startswith("- **New here?**"))
    pages = re.findall(r"\]\((\w+\.md)\)", way)
    assert pages == ["installing.md", "journeys.md", "own_problem.md"]
    for block in blocks(f"docs/{pages[-1]}"):
        if not block["excuse"]:
            shell(fewer(block["text"]), block["language"])
    assert len(Dataset.open("bimetal.h5")) == 8 and json.loads(Path("bimetal.json").read_text())["certified"]
    assert load("bimetal.safetensors").responses == ("deflection", "stress")
    for picture in ("samples.png", "report/values.png"):
        assert Path(picture).read_bytes().startswith(b"\x89PNG")
    assert "<svg" in Path("bimetal.html").read_text() and Path("report/report.html").is_file()
