"""Wheel and source archive hold what they should, and install with each extra into an environment of its own."""

import os
from pathlib import Path
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest

ROOT = Path(__file__).parents[1]
DIST = os.environ.get("SOBOFEM_DIST")
pytestmark = pytest.mark.skipif(not DIST, reason="run by `make dist`, which builds wheel and source archive first")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
INSTALLED = ("", "fem", "surrogate", "mesh,onnx,parquet,studies,files,engines")
"""Extras for users, as they are installed together; the others are for developers."""
IMPORTS = {
    "": "import sobofem.coupling.cli; from sobofem.coupling import Dataset, Design",
    "fem": "from sobofem.fem.library.plate_with_hole import plate_with_hole",
    "surrogate": "from sobofem import surrogate",
    "mesh,onnx,parquet,studies,files,engines": (
        "import gmsh, onnxscript, onnxruntime, pyarrow.parquet, pymoo, SALib, nutpie, meshio, distributed, gest_api"
    ),
}
"""What works once they are there."""


@pytest.fixture(scope="module")
def wheel():
    (found,) = Path(DIST).resolve().glob("*.whl")
    return found


def test_the_wheel_holds_the_package_whole_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    folders = ("fem", "surrogate", "coupling", "meshes")
    expected = {f"sobofem/{path.relative_to(ROOT).as_posix()}" for each in folders for path in files(ROOT / each)}
    assert names == expected | {"sobofem/__init__.py", "sobofem/py.typed"}


def files(folder):
    kept = {".py", ".typed", ".h5", ".xdmf", ".html", ".sh", ".safetensors"}
    return [path for path in folder.rglob("*") if path.suffix in kept and "__pycache__" not in path.parts]


def test_the_source_archive_makes_the_same_wheel(wheel, tmp_path):
    (source,) = Path(DIST).resolve().glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    uv("build", "--quiet", "--wheel", "--out-dir", tmp_path / "again", folder)
    (again,) = (tmp_path / "again").glob("*.whl")
    first, second = (zipfile.ZipFile(each) for each in (wheel, again))
    assert sorted(first.namelist()) == sorted(second.namelist())
    assert all(first.read(name) == second.read(name) for name in first.namelist())


@pytest.mark.parametrize("extra", INSTALLED)
def test_it_installs_into_an_environment_of_its_own(wheel, extra, tmp_path):
    uv("venv", "--quiet", "--python", sys.executable, tmp_path / "env")
    python = tmp_path / "env/bin/python"
    wanted = f"sobofem[{extra}] @ file://{wheel}" if extra else str(wheel)
    uv("pip", "install", "--quiet", "--python", python, "--constraint", ROOT / "requirements.lock", wanted)
    uv("pip", "check", "--quiet", "--python", python)
    lean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run([python, "-c", IMPORTS[extra]], cwd=tmp_path, env=lean)
    assert "generate" in run([tmp_path / "env/bin/sobofem", "--help"], cwd=tmp_path, env=lean)
    doctor = run([tmp_path / "env/bin/sobofem", "doctor"], cwd=tmp_path, env=lean)
    assert ("FEniCSx" in doctor and "missing" in doctor) or extra == "fem"


def test_every_extra_is_for_users_or_developers():
    assert set(EXTRAS) == {*",".join(INSTALLED).split(","), "docs", "rivals", "dev", "oracle"} - {""}


def uv(*words):
    return run([Path(sys.executable).parent / "uv", *words])


def run(words, **where):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **where)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
