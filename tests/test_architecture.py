"""The page on the architecture has the rooms that there are."""

from pathlib import Path
import re
import tomllib

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def rooms(package):
    found = (p for p in (ROOT / package).iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file())
    return {p.name + "/" * p.is_dir() for p in found} - {"__init__.py"}


@pytest.mark.parametrize("package", ["fem", "surrogate", "coupling"])
def test_every_room_has_a_sentence_on_the_page_and_a_floor_in_the_table(package):
    table = re.search(rf"\| `{package}/` \| \|\n(.*?)\n\n", PAGE, re.DOTALL)[1]
    assert set(re.findall(r"^\| `([^`]+)` \| [A-Z`].*\. \|$", table, re.MULTILINE)) == rooms(package)
    (layers,) = (c["layers"] for c in CONTRACTS if c.get("containers") == [f"sobofem.{package}"])
    floors = [name.strip() for layer in layers for name in layer.split(":")]
    assert sorted(floors) == sorted(room.removesuffix("/").removesuffix(".py") for room in rooms(package))


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_files_that_a_page_names_exist(page):
    for path in re.findall(r"`((?:fem|surrogate|coupling)/[\w/]+(?:\.py)?)`", (ROOT / page).read_text()):
        assert (ROOT / path).exists(), path
