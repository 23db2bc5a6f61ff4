"""Where to train."""

from __future__ import annotations

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
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {device!r} can't be used here ({reason}); train on 'cpu'") from error
