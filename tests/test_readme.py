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


def test_linked_files_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert target.startswith("http") or (ROOT / target).exists(), target


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
