"""Two scales: a law is learned of a cell of rubber with a fibre, until a panel that is bent with it is certified.

python examples/two_scales.py --out two_scales.png --folder two-scales

The same as a study, with all samples in one folder: sobofem run examples/two_scales.py --out two-scales
"""

from __future__ import annotations

import argparse
from pathlib import Path
import tempfile

from matplotlib.figure import Figure
from matplotlib.tri import Triangulation
import numpy as np

from sobofem.coupling import Design, generate
from sobofem.coupling.library.composite_panel import composite_panel, fibre_cell
from sobofem.coupling.scales import TwoScales, TwoScaleSettings, two_scales
from sobofem.coupling.study import Study, purposes

LIBRARY = "sobofem.coupling.library.composite_panel"
DESIGN, SETTINGS = Design("sobol", 64, seed=1), TwoScaleSettings(tolerance=0.01, states=8, points=16, rounds=4)

study = Study(
    fibre_cell,
    DESIGN,
    training=None,  # the law is trained by its purpose
    purposes=(purposes.TwoScales(f"{LIBRARY}:composite_panel", tolerance=0.01, states=8, points=16, rounds=4),),
)


def learn(folder: Path, settings: TwoScaleSettings = SETTINGS) -> TwoScales:
    """Sample the cell, and learn its law; a second call in the same folder finds what is there."""
    folder.mkdir(parents=True, exist_ok=True)
    return two_scales(fibre_cell, composite_panel, generate(fibre_cell, DESIGN, folder / "cell.h5"), folder, settings)


def draw(found: TwoScales, path: Path) -> Path:
    """The panel, bent; and how certain its responses are from law to law."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.4, 1))
    problem = composite_panel(law=found.law)
    problem.evaluate(problem.bounds[:, 1], jacobian=False)
    places = problem.unknown.function_space.tabulate_dof_coordinates()[:, :2]
    moves = problem.unknown.x.array.reshape(-1, 2)
    corners = Triangulation(*places.T).triangles  # of the panel as it was: bent, it is not convex
    bent = Triangulation(*(places + moves).T, corners)
    shown = left.tripcolor(bent, np.linalg.norm(moves, axis=1), shading="gouraud")
    figure.colorbar(shown, ax=left, label="displacement [mm]")
    left.set(aspect="equal", title="a panel with a law that was learned of a cell")
    for k, name in enumerate(found.responses):
        errors = [max(abs(c.errors[k]) for c in certificates) for certificates in found.rounds]
        if max(errors):  # those that depend on the law
            right.semilogy(found.samples, errors, "o-", label=name)
    right.axhline(found.tolerance, color="0.4", linestyle="--", label="asked for")
    right.set(xlabel="cells learned from", ylabel="error of the panel's response, at most", title="certified by cells")
    right.grid(alpha=0.3)
    right.legend()
    figure.savefig(path, dpi=110)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("two_scales.png"), help="picture to write")
    parser.add_argument("--folder", type=Path, help="where to keep cells and laws; by default nowhere")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as aside:
        result = learn(given.folder or Path(aside))
    print("certified" if result.certified else "; ".join(result.warnings))
    print(draw(result, given.out))
