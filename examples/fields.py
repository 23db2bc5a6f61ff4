"""The stress field of the plate with a hole, learned from a few solves with its exact derivatives.

Each solve gives the von Mises stress of 1,850 cells and its derivatives by six parameters, two of which move the mesh.
A reduced basis turns the field into some twenty coefficients, a network learns these with their derivatives, and the
field of a plate that was never solved comes back in well under a millisecond.

    python examples/fields.py --out field.png
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
import numpy as np

from sobofem import fem
from sobofem.fem.fields import CellField
from sobofem.fem.library.plate_with_hole import plate_with_hole
from sobofem.surrogate import LBFGS, Adam, train
from sobofem.surrogate.reduction import FieldSamples, FieldSurrogate, Truncation, by_variance, reduced_basis

SHOWN = (70e3, 0.33, 120.0, 40.0, 30.0, 18.0)  # MPa, -, MPa, MPa, mm, mm


class Study(NamedTuple):
    """What was learned, and how well: shares of the field's root mean square deviation on unseen plates.

    Attributes:
        model: The surrogate of the field.
        error: Its error.
        slope_error: That of its derivatives.
        basis_error: What the basis alone leaves out.
    """

    model: FieldSurrogate
    error: float
    slope_error: float
    basis_error: Truncation


def sample(problem: fem.Problem, stress: CellField, count: int, seed: int) -> FieldSamples:
    """Fields with their derivatives at random points of the parameters' box."""
    low, high = problem.bounds.T
    x = np.random.default_rng(seed).uniform(low, high, size=(count, len(low)))
    fields, jacobians = zip(*map(stress.evaluate, x), strict=True)
    units = {**problem.units, "von_mises": "MPa"}
    return FieldSamples(x, np.array(fields), jacobians, problem.parameters, problem.bounds, "von_mises", units)


def learn(
    data: FieldSamples, unseen: FieldSamples, mass: np.ndarray, *, tolerance: float = 0.01, iterations: int = 1000
) -> Study:
    """Reduce, train, and judge on unseen samples, in the norm of the field over the plate."""
    basis = reduced_basis(data, tolerance=tolerance, mass=mass)
    coefficients = basis.reduce(data)
    optimizers = (Adam(), LBFGS(iterations))
    model = FieldSurrogate(basis, train(coefficients, weighting=by_variance(coefficients), optimizers=optimizers))
    field, slopes = model.predict(unseen.x, jacobian=True)
    weight = np.sqrt(mass)
    error = np.linalg.norm((field - unseen.fields) * weight)
    slope_error = np.linalg.norm((slopes - np.array(unseen.jacobian)) * unseen.scale * weight[:, None])
    return Study(
        model=model,
        error=float(error / np.linalg.norm((unseen.fields - unseen.fields.mean(axis=0)) * weight)),
        slope_error=float(slope_error / np.linalg.norm(np.array(unseen.jacobian) * unseen.scale * weight[:, None])),
        basis_error=basis.truncation(unseen),
    )


def draw(stress: CellField, model: FieldSurrogate, path: Path, x: Sequence[float] = SHOWN) -> Path:
    """Solved, predicted and the difference, side by side, on the plate as its parameters make it."""
    solved, predicted = stress.evaluate(x, jacobian=False)[0], model.evaluate(x, jacobian=False)[0]
    cells = stress.outlines(x)
    figure = Figure(figsize=(14, 4.4), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    shown = {"solved": solved, "predicted": predicted, "predicted - solved": predicted - solved}
    largest = np.abs(predicted - solved).max()
    for axes, (title, values) in zip(panels, shown.items(), strict=True):
        difference = title == "predicted - solved"
        limits = (-largest, largest) if difference else (solved.min(), solved.max())
        patches = PolyCollection(cells, array=values, cmap="RdBu_r" if difference else "viridis", edgecolors="face")
        patches.set_clim(*limits)
        axes.add_collection(patches)
        axes.set(title=title, aspect="equal", xlabel="x [mm]", xlim=(0, cells.max()), ylim=(0, cells.max()))
        figure.colorbar(patches, ax=axes, label="von Mises stress [MPa]", shrink=0.9)
    panels[0].set_ylabel("y [mm]")
    figure.savefig(path, dpi=130)
    return path


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("field.png"), help="picture to write")
    parser.add_argument("--samples", type=int, default=48, help="solves to learn from")
    parser.add_argument("--unseen", type=int, default=64, help="solves to judge by")
    options = parser.parse_args()

    problem = plate_with_hole()
    stress = CellField(problem, "von_mises")
    data = sample(problem, stress, options.samples, seed=1)
    unseen = sample(problem, stress, options.unseen, seed=2)
    study = learn(data, unseen, stress.mass)
    print(f"{options.samples} solves, {stress.size} values a field, {study.model.basis.rank} modes")
    print(f"left out by the modes:  values {study.basis_error.values:.1%}", end=", ")
    print(f"derivatives {study.basis_error.derivatives:.1%}")
    print(f"error of the surrogate: values {study.error:.1%}, derivatives {study.slope_error:.1%}")
    print(draw(stress, study.model, options.out))


if __name__ == "__main__":
    main()
