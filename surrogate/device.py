"""Where to train."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from textwrap import shorten

import numpy as np
import torch

CPU = torch.device("cpu")
"""Where modules are built, random numbers are drawn and surrogates live, whatever torch's default device is: a context,
`with CPU:`, for code that doesn't say where its tensors go."""


def check_device(device: str) -> None:
    """Check that torch can compute on a device in double precision, as it names them: `cpu`, `cuda`, `cuda:1`.

    Raises:
        ValueError: If it can't; the message has torch's reason.
    """
    try:
        torch.ones(1, dtype=torch.float64, device=device).item()
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = shorten(str(error).splitlines()[0], 160, placeholder=" …")
        raise ValueError(f"device {device!r} can't be used here ({reason}); train on 'cpu'") from error


@contextmanager
def neutral() -> Iterator[None]:
    """PyTorch and NumPy as they come: the caller's settings neither matter to what is inside nor change by it.

    Gradients can be taken within `torch.no_grad()` and `torch.inference_mode()`, new tensors are on the CPU whatever
    the default device, layers draw their weights whatever the default precision, and NumPy warns where the caller has
    it raise.
    """
    here = nullcontext() if torch.get_default_device() == CPU else CPU
    usual = np.errstate(divide="warn", over="warn", under="ignore", invalid="warn")
    precision = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False), torch.enable_grad(), here, usual:
            yield
    finally:
        torch.set_default_dtype(precision)


@contextmanager
def undisturbed() -> Iterator[None]:
    """As `neutral`, and torch's own random numbers go on afterwards as if nothing had been drawn.

    Modules are built with numbers from a generator, but layers of torch draw some of the default one before.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() and torch.cuda.is_initialized() else ()
    with neutral(), torch.random.fork_rng(devices):
        yield
