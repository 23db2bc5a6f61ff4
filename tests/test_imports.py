"""Each package works where the others' heavy dependencies are missing."""

import ast
from pathlib import Path
import re
import subprocess
import sys

import pytest

import sobofem

ROOT = Path(__file__).parents[1]
SUSPECT = re.compile(r"\b(import|from)[^\n]*(?<![.\w])(fem|surrogate|coupling|meshes)\b")
"""Lines that may import them: to parse all files takes long."""

BLOCK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.startswith({blocked}):
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
"""


def run(blocked, script, folder):
    code = BLOCK.format(blocked=blocked) + script
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, timeout=300)


@pytest.mark.slow
def test_finite_elements_work_without_torch_and_what_else_a_rank_does_not_need(tmp_path):
    script = """
from sobofem.fem.library.cantilever import cantilever
problem = cantilever(cells=(4, 1, 1))
response, jacobian = problem.evaluate(problem.bounds.mean(axis=1))
print(jacobian.shape)
import sys
assert not {"scipy.sparse", "scipy.spatial", "scipy.stats", "matplotlib", "rich", "h5py"} & set(sys.modules)
"""
    done = run(("torch", "sobofem.surrogate", "sobofem.coupling"), script, tmp_path)
    assert done.stdout.strip() == "(5, 7)", done.stderr


@pytest.mark.slow
def test_data_training_and_optimization_work_without_finite_elements_and_mpi(tmp_path):
    script = """
import numpy as np
from sobofem import fit
from sobofem.coupling import Dataset, Description
from sobofem.coupling.optimize import Task, search
from sobofem import surrogate

x = np.random.default_rng(1).uniform(-1.0, 1.0, (12, 2))
y = np.stack([(x**2).sum(axis=1), x.sum(axis=1)], axis=1)
dy = np.stack([2 * x, np.ones_like(x)], axis=1)
bounds = np.array([[-1.0, 1.0], [-1.0, 1.0]])
Dataset.from_arrays(x, y, dy, description=Description("bowl", ("a", "b"), ("height", "sum"), bounds)).save("bowl.h5")
network = surrogate.train(Dataset.open("bowl.h5"), optimizers=(surrogate.LBFGS(iterations=200),))
print(search(network, Task("height", at_least={"sum": 0.5})).x.round(1).tolist())
"""
    done = run(("dolfinx", "petsc4py", "mpi4py", "ufl", "basix", "sobofem.fem"), script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert eval(done.stdout) == pytest.approx([0.2, 0.2], abs=0.11)


@pytest.mark.slow
def test_importing_changes_nothing(tmp_path):
    script = """
import importlib, os, signal, numpy, sys
def state():
    return dict(os.environ), sys.excepthook, numpy.get_printoptions(), signal.getsignal(signal.SIGINT)
before = state()
for package in ("sobofem", "sobofem.fem", "sobofem.surrogate", "sobofem.coupling"):
    importlib.import_module(package)
    assert state() == before, package
"""
    done = run((), script, tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_everyday_names_are_there_without_what_they_need(tmp_path):
    script = """
import sys
import sobofem
assert {"Problem", "generate", "fit", "minimize", "fem"} <= set(dir(sobofem))
assert not {"torch", "mpi4py", "dolfinx", "scipy", "h5py"} & set(sys.modules)
from sobofem import Dataset
assert not {"torch", "mpi4py", "dolfinx"} & set(sys.modules)
try:
    sobofem.nothing
except AttributeError as error:
    print(error)
"""
    done = run(("dolfinx", "petsc4py", "mpi4py"), script, tmp_path)
    assert done.stdout.strip() == "module 'sobofem' has no attribute 'nothing'", done.stderr


@pytest.mark.slow
def test_generating_imports_nothing_that_takes_long_and_is_not_used(tmp_path):
    (tmp_path / "model.py").write_text("""
import numpy as np
class Model:
    parameters, responses, bounds, digest = ("a",), ("b",), np.array([[0.0, 1.0]]), "1"
    def evaluate(self, x, *, jacobian=True):
        return x**2, np.diag(2 * x)
model = Model()
""")
    script = """
import atexit, sys
slow = {"scipy", "scipy.stats", "torch", "rich", "matplotlib", "dolfinx", "mpi4py", "asyncio", "pydantic"}
before = set(sys.modules)
from sobofem.coupling.parallel import leaving
def report(error):
    print("imported:", sorted(slow & set(sys.modules)), len(set(sys.modules) - before))
leaving.end_despite_others = report
from sobofem.coupling.start import main
sys.argv = ["sobofem", "generate", "model.py:model", "--samples", "8", "--seed", "1", "--out", "a.h5"]
main()
"""
    done = run((), script, tmp_path)
    *_, names, count = done.stdout.rpartition("imported: ")[2].rsplit(" ", 1)
    assert names == "[]" and int(count) < 400, done.stderr


def test_every_everyday_name_leads_to_something():
    assert all(getattr(sobofem, name) is not None for name in sobofem.__all__)


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["fem", "surrogate", "coupling", "meshes", "examples", "benchmarks", "tests"])
def test_nothing_imports_a_package_by_the_name_of_its_folder(folder):
    for path in (ROOT / folder).rglob("*.py"):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if SUSPECT.search(text) else ():
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            wrong = {name.partition(".")[0] for name in names} & {"fem", "surrogate", "coupling", "meshes"}
            assert not wrong, f"{path}, line {node.lineno}"
