"""Every command and snippet of the README runs, in order, in one folder, but for those that a comment excuses."""

import os
from pathlib import Path
import re
import subprocess
import sys

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(?P<excuse><!--[^\n]*-->\n)?```(?P<language>bash|python)\n(?P<text>.*?)```", re.DOTALL)
EXCUSES = ("run by continuous integration", "an excerpt", "needs other package sources than the tests have")


def blocks(page="README.md"):
    return list(BLOCK.finditer((ROOT / page).read_text()))


def test_excused_blocks_give_a_known_reason():
    for block in blocks():
        if block["excuse"]:
            assert any(excuse in block["excuse"] for excuse in EXCUSES)


@pytest.mark.parametrize("page", ["README.md", "docs/problems.md"])
def test_excerpts_are_some(page):
    found = [block for block in blocks(page) if "an excerpt" in (block["excuse"] or "")]
    assert found
    for block in found:
        source = re.search(r"an excerpt of (\S+)", block["excuse"])[1]
        lines = {line.strip() for line in (ROOT / source).read_text().splitlines()}
        assert all(line.strip() in lines for line in block["text"].splitlines())


@pytest.mark.parametrize("page", ["README.md", "docs/cluster.md", "docs/surrogates.md"])
def test_linked_files_exist(page):
    file = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)\)", file.read_text()):
        assert target.startswith("http") or (file.parent / target).exists(), target


def test_job_scripts_of_the_walkthrough_are_written(tmp_path):
    """The rest of that page needs a cluster, or is run by `make test-cluster`."""
    (tmp_path / "plate.py").touch()
    (tmp_path / "sobofem.sif").touch()
    program = f"#!/bin/bash\nexec {sys.executable} -c 'from coupling.cli import main; main()' \"$@\"\n"
    (tmp_path / "sobofem").write_text(program)
    (tmp_path / "sobofem").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    text = "".join(block["text"] for block in blocks("docs/cluster.md")).replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith("sobofem slurm")]
    assert len(lines) == 3
    for line in lines:
        run = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
    assert {file.name for file in tmp_path.glob("*.sh")} == {"plate.sh", "array.sh", "groups.sh"}


@pytest.mark.slow
def test_commands_and_snippets_run_in_order(tmp_path):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    told = [block for block in blocks() if not block["excuse"]]
    assert len(told) >= 5
    for block in told:
        shell = ["bash", "-euo", "pipefail", "-c"] if block["language"] == "bash" else [sys.executable, "-c"]
        run = subprocess.run([*shell, block["text"]], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, f"{block['text']}\n{run.stdout}\n{run.stderr}"
    for made in ("plate.h5", "train.h5", "plate.safetensors", "report/values.png"):
        assert (tmp_path / made).is_file(), made
