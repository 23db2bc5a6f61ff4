"""Scrambled Sobol' points, the same as `scipy.stats.qmc.Sobol` draws: importing that takes half a second.

It brings 570 modules with it, on rank 0 while all others wait. Direction numbers are those of Joe and Kuo (2008), which
SciPy has in a file; scrambling is by a random lower triangular matrix and a shift (Matousek, 1998).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sobofem.coupling.contract import Array

BITS = 30
"""Binary digits of a point."""


def scrambled_sobol(n: int, N: int, *, seed: int) -> Array:
    """The first N points in the unit cube, (N, n).

    Raises:
        ValueError: If there are no direction numbers for so many inputs, or not that many points.
    """
    if N > 1 << BITS:
        raise ValueError(f"a Sobol' sequence of {BITS} digits has {1 << BITS:,} points; {N:,} were asked for")
    directions = _directions(n)
    rng = np.random.default_rng(seed).spawn(1)[0]
    digits = 1 << np.arange(BITS, dtype=np.uint32)
    shift = rng.integers(2, size=(n, BITS), dtype=np.uint32) @ digits
    lower = np.tril(rng.integers(2, size=(n, BITS, BITS), dtype=np.uint32), -1) + np.eye(BITS, dtype=np.uint32)
    bits = directions[:, :, None] >> np.arange(BITS - 1, -1, -1, dtype=np.uint32) & 1  # the first digit first
    scrambled = (np.einsum("dpk,djk->djp", lower, bits) & 1) @ digits[::-1]
    points = np.empty((N, n), dtype=np.uint32)
    points[0] = shift
    for j in range((N - 1).bit_length()):  # in Gray's order: what there is, backwards, with one digit changed
        half = 1 << j
        end = min(2 * half, N)
        points[half:end] = points[:half][::-1][: end - half] ^ scrambled[:, j].astype(np.uint32)
    return np.asarray(points * 2.0**-BITS)


def _directions(n: int) -> NDArray[np.uint32]:
    """Direction numbers of n inputs, (n, BITS)."""
    found = importlib.util.find_spec("scipy")
    assert found is not None and found.origin is not None
    with np.load(Path(found.origin).parent / "stats" / "_sobol_direction_numbers.npz") as file:
        polynomials, first = file["poly"], file["vinit"]
    if n > len(polynomials):
        raise ValueError(f"a Sobol' sequence has at most {len(polynomials):,} inputs; {n:,} were asked for")
    numbers = np.ones((n, BITS), dtype=np.int64)  # of the first input all are one
    for i in range(1, n):
        polynomial = int(polynomials[i])
        degree = polynomial.bit_length() - 1
        m = first[i, :degree].tolist()
        for j in range(degree, BITS):
            new = m[j - degree]
            for k in range(1, degree + 1):
                if polynomial >> degree - k & 1:
                    new ^= m[j - k] << k
            m.append(new)
        numbers[i] = m
    return (numbers << np.arange(BITS - 1, -1, -1)).astype(np.uint32)
