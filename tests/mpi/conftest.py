"""Every rank runs pytest and needs a temporary folder of its own: pytest's cleaning of a shared one is a race."""

import os
from pathlib import Path
import tempfile

from mpi4py import MPI

own = Path(tempfile.gettempdir()) / f"pytest-rank{MPI.COMM_WORLD.rank}-of-{os.getuid()}"
own.mkdir(exist_ok=True)
os.environ["PYTEST_DEBUG_TEMPROOT"] = str(own)
