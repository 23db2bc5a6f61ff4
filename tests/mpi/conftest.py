"""Every rank runs pytest and needs a temporary folder of its own: pytest's cleaning of a shared one is a race."""

import atexit
import os
import shutil
import tempfile

from mpi4py import MPI

own = tempfile.mkdtemp(prefix=f"pytest-rank{MPI.COMM_WORLD.rank}-")
atexit.register(shutil.rmtree, own, ignore_errors=True)
os.environ["PYTEST_DEBUG_TEMPROOT"] = own
