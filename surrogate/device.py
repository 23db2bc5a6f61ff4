"""Where to train."""

from __future__ import annotations

import torch


def check_device(device: str) -> None:
    """Check that torch can compute on a device, as it names them: `cpu`, `cuda`, `cuda:1`.

    Raises:
        ValueError: If it can't; the message has torch's reason.
    """
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {device!r} can't be used here ({reason}); train on 'cpu'") from error
