import subprocess
import sys

import pytest

SCRIPT = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        heavy = {"dolfinx", "petsc4py", "mpi4py", "ufl", "basix", "scipy", "h5py"}
        if name.split(".")[0] in heavy or name.startswith(("sobofem.fem", "sobofem.coupling")):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Block())
import torch
before = torch.get_default_dtype(), torch.get_num_threads(), torch.initial_seed()
import numpy as np
from sobofem import surrogate
assert (torch.get_default_dtype(), torch.get_num_threads(), torch.initial_seed()) == before
assert not torch.cuda.is_initialized()
x = np.linspace(0.0, 1.0, 8)[:, None]
data = surrogate.Samples(x, x**2, 2 * x[:, :, None], ("x",), ("y",), np.array([[0.0, 1.0]]))
model = surrogate.train(data, optimizers=(surrogate.LBFGS(20),))
print(model.evaluate([0.5])[0][0])
"""


@pytest.mark.slow
def test_trains_with_finite_elements_and_message_passing_blocked_and_changes_no_global():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert abs(float(done.stdout) - 0.25) < 0.01
