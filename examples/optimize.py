"""Five related optima of a rubber block, certified, against SLSQP; and a front of a cantilever.

The block is nonlinear and its modulus a random field of ten coefficients: which of them give the least stress while the
top moves by no more than a limit? Five limits make a family; every solve of one search guides the next.

    python examples/optimize.py --out optimize-output
"""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.figure import Figure
import numpy as np
import scipy.optimize

from sobofem.coupling import Design, generate
from sobofem.coupling.contract import Model
from sobofem.coupling.optimize import Front, Optimum, Solution, Task, judged_as, minimize, pareto
from sobofem.coupling.optimize.front_report import front_picture
from sobofem.coupling.optimize.report import convergence_picture
from sobofem.fem.library.cantilever import cantilever
from sobofem.fem.library.random_block import random_block

LIMITS = (16.0, 17.0, 15.0, 18.0, 14.0)  # mm
LOAD = {"young": 210e3, "poisson": 0.3, "force_y": 1000.0, "force_z": 100.0}  # MPa, -, N, N


def family(model: Model) -> list[Solution]:
    """The five optima, one after the other, each from all samples so far."""
    solutions: list[Solution] = []
    for limit in LIMITS:
        archive = solutions[-1].archive if solutions else None
        task = Task("stress", at_most={"displacement_x": limit})
        solutions.append(minimize(model, task, archive=archive))
    return solutions


def rival(model: Model, optimum: Optimum) -> int:
    """Solves of SciPy's SLSQP on the model, scaled and with exact gradients, until the same certificate holds."""
    low, span = model.bounds[:, 0], np.diff(model.bounds, axis=1)[:, 0]
    rows = [model.responses.index(name) for name in ("stress", "displacement_x")]
    limit, seen = optimum.task.at_most["displacement_x"], dict[bytes, tuple[np.ndarray, np.ndarray, bool]]()

    def at(z: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
        if z.tobytes() not in seen:
            y, jacobian = model.evaluate(low + z * span)
            certified = judged_as(optimum, model, low + z * span, y, jacobian).certified
            seen[z.tobytes()] = y[rows], jacobian[rows] * span, certified
        return seen[z.tobytes()]

    start = np.full(len(low), 0.5)
    size = np.linalg.norm(at(start)[1], axis=1)
    scipy.optimize.minimize(
        lambda z: (at(z)[0][0] / size[0], at(z)[1][0] / size[0]),
        start,
        jac=True,
        bounds=[(0.0, 1.0)] * len(low),
        constraints={
            "type": "ineq",
            "fun": lambda z: (limit - at(z)[0][1]) / size[1],
            "jac": lambda z: -at(z)[1][1] / size[1],
        },
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 200},
    )
    certified = [row[2] for row in seen.values()]
    return certified.index(True) + 1 if any(certified) else len(certified)


def front(data: Path) -> Front:
    """Mass against deflection of a cantilever: found on a surrogate of 24 samples, five points certified."""
    from sobofem import surrogate

    model = cantilever()
    samples = generate(cantilever, Design("sobol", 24, seed=1), data)
    network = surrogate.fit(samples, families=(surrogate.Kriging(),))
    found = pareto(network, ("mass", "deflection_y"), at_most={"upper_stress": 150.0}, fixed=LOAD, seed=1)
    return found.certify(model, np.linspace(0, len(found.x) - 1, 5).astype(int).tolist(), surrogate=network)


def family_picture(solves: list[int], rivals: list[int], path: Path) -> None:
    """Solves of all searches so far, ours and the rival's."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    names = [f"{limit:g} mm" for limit in LIMITS]
    axes.plot(names, np.cumsum(rivals), "s-", color="tab:orange", label="SLSQP on the model")
    axes.plot(names, np.cumsum(solves), "o-", color="tab:blue", label="minimize, samples shared")
    axes.set(xlabel="limit of the displacement, one search after the other", ylabel="solves of the model, in all")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)


def main(out: Path) -> tuple[list[Solution], list[int], Front]:
    """All of it; the optima, the rival's solves, and the front."""
    out.mkdir(parents=True, exist_ok=True)
    model = random_block()
    solutions = family(model)
    rivals = [rival(model, solution.optimum) for solution in solutions]
    for limit, solution, other in zip(LIMITS, solutions, rivals, strict=True):
        best = solution.optimum
        said = f"{limit:4g} mm: stress {best.objective:.6f} MPa, certified {best.certified}"
        print(f"{said}, {solution.solves} solves; SLSQP {other}")
    print(f"together {sum(s.solves for s in solutions)} solves; SLSQP {sum(rivals)}")
    family_picture([solution.solves for solution in solutions], rivals, out / "optimize_family.png")
    convergence_picture(solutions[0], out / "optimize_convergence.png")
    found = front(out / "cantilever.h5")
    for row, solution in sorted(found.certificates.items()):
        said = f"front, point {row}: mass {solution.objective:.2f} g, certified {solution.certified}"
        print(f"{said}, {solution.solves} solves")
    front_picture(found, out / "optimize_front.png")
    return solutions, rivals, found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("optimize-output"), help="folder for pictures")
    main(parser.parse_args().out)
