"""What slopes are worth: a peak with a valley beside it, learned from a dozen points with and without derivatives.

python examples/slopes_pay.py --out slopes_pay.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.figure import Figure
import numpy as np

from sobofem import surrogate
from sobofem.coupling import sobol

BOUNDS = {"a": (-2.0, 2.0), "b": (-2.0, 2.0)}


def peak(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A function of two inputs (N, 2) with its gradient: values (N, 1) and slopes (N, 1, 2)."""
    bell = np.exp(-(x**2).sum(axis=1))
    value = x[:, 0] * bell
    slopes = np.stack([bell - 2 * x[:, 0] * value, -2 * x[:, 1] * value], axis=1)
    return value[:, None], slopes[:, None]


def learned(points: int, *, with_slopes: bool) -> surrogate.Surrogate:
    """A Gaussian process on samples of it."""
    x = sobol(np.array(list(BOUNDS.values())), points, seed=3)
    y, slopes = peak(x)
    samples = surrogate.Samples(x, y, slopes if with_slopes else None, tuple(BOUNDS), ("height",), bounds=BOUNDS)
    return surrogate.fit(samples, families=(surrogate.Kriging(),))


def draw(path: Path, *, points: int = 12, grid: int = 41) -> dict[str, float]:
    """The function and both surrogates; returns the surrogates' errors, relative to the function's deviation."""
    axis = np.linspace(-2.0, 2.0, grid)
    x = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    truth = peak(x)[0][:, 0]
    shown = {"the function": truth}
    for words, with_slopes in (("values alone", False), ("values and slopes", True)):
        shown[f"learned from {words}"] = learned(points, with_slopes=with_slopes).predict(x)[0][:, 0]
    figure = Figure(figsize=(12, 4), layout="constrained")
    errors = {title: float(np.sqrt(np.mean((y - truth) ** 2)) / truth.std()) for title, y in shown.items()}
    for axes, (title, values) in zip(figure.subplots(1, 3), shown.items(), strict=True):
        axes.contourf(axis, axis, values.reshape(grid, grid), levels=np.linspace(-0.5, 0.5, 21), extend="both")
        axes.set(aspect="equal", title=f"{title}\nerror {errors[title]:.0%}")
        axes.plot(*sobol(np.array(list(BOUNDS.values())), points, seed=3).T, "w.")
    figure.savefig(path, dpi=110)
    return errors


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("slopes_pay.png"), help="picture to write")
    print(draw(parser.parse_args().out))
