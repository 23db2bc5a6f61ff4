"""The whole mission on a real structure, in six minutes on two cores.

A plate with an elliptical hole under biaxial tension: samples with exact Jacobians are generated under MPI, the same
network is trained on values only and with sensitivities, the lightest plate under a bound on its stress concentration
is found with the network, and the finite-element model certifies it. Then an elastic-plastic specimen with notches,
whose network is trained while its samples are solved.

    python examples/demo.py --out demo-output
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
import json
from multiprocessing import get_context
from pathlib import Path
import shutil
import subprocess
import sys
import time

import demo_pictures
from rich.console import Console
from rich.table import Table

from sobofem.coupling import Dataset
from sobofem.coupling.optimize import Solution, Task, minimize
from sobofem.coupling.optimize.report import show
from sobofem.coupling.report import errors, write_report

MODEL = "plate_with_hole"
SPECIMEN = "notched_specimen"
WEIGHTINGS = ("values only", "Sobolev")
LOAD = {"young": 70e3, "poisson": 0.33, "traction_x": 100.0, "traction_y": 60.0}  # MPa, -, MPa, MPa
TASK = Task("mass", at_most={"stress_concentration": 1.95}, fixed=LOAD)
CIRCLE = [70e3, 0.33, 100.0, 60.0, 20.0, 20.0]  # where the design starts: the same load, a round hole

console = Console(width=None if sys.stdout.isatty() else 100)


def generate(out: Path, samples: int, seed: int) -> Dataset:
    """Solve the plate at the points of a Sobol' design, on two ranks; a repeated call finds what is there."""
    run("mpiexec", "-n", 2, "sobofem", "generate", MODEL, "--samples", samples, "--seed", seed, "--out", out)
    return Dataset.open(out)


def stream(out: Path, samples: int) -> Path:
    """Train on the notched specimen while it is solved: one rank trains, one solves; the log of it."""
    surrogate = out / "specimen.safetensors"
    files = ("--data", out / "specimen.h5", "--out", surrogate)
    run("mpiexec", "-n", 2, "sobofem", "stream", SPECIMEN, "--samples", samples, "--seed", 1, *files)
    return surrogate.with_name(surrogate.name + ".csv")


def run(*words: object) -> None:
    """Show and run a command."""
    command = [str(word) for word in words]
    console.print(f"$ {' '.join(command)}", style="dim")
    subprocess.run([program(word) if word in ("mpiexec", "sobofem") else word for word in command], check=True)


def program(name: str) -> str:
    """A program beside this Python, else on the PATH."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is neither beside this Python nor on the PATH; install it")
    return found


def train(weighting: str, samples: int, out: Path) -> dict[str, object]:
    """Train on the first samples of the design, and judge on points that no training saw."""
    import torch

    from sobofem import surrogate

    torch.set_num_threads(1)
    start = time.perf_counter()
    rule = surrogate.ValuesOnly() if weighting == "values only" else surrogate.PerChannel()
    model = surrogate.train(Dataset.open(out / "plate.h5").head(samples), weighting=rule, seed=1)
    seconds = time.perf_counter() - start
    model.save(out / f"plate_{samples}_{weighting.replace(' ', '_').lower()}.safetensors")
    found = errors(model, Dataset.open(out / "unseen.h5"))
    return {
        "weighting": weighting,
        "samples": samples,
        "values": float(found.values.mean()),
        "derivatives": float(found.derivatives.mean()),
        "seconds": seconds,
    }


def train_all(out: Path, counts: list[int]) -> list[dict[str, object]]:
    """Every training, two at a time; the longest first."""
    tasks = [(weighting, n) for n in sorted(counts, reverse=True) for weighting in WEIGHTINGS]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        rows = list(pool.map(train, *zip(*tasks, strict=True), [out] * len(tasks)))
    return sorted(rows, key=lambda row: (row["samples"], WEIGHTINGS.index(str(row["weighting"]))))


def show_errors(rows: list[dict[str, object]]) -> None:
    """The learning curves as a table."""
    title = "normalized RMSE on unseen points, mean over channels"
    table = Table("samples", "trained on", "values", "derivatives", "training [s]", title=title)
    for row in rows:
        cells = (f"{row['values']:.4f}", f"{row['derivatives']:.4f}", f"{row['seconds']:.1f}")
        table.add_row(str(row["samples"]), str(row["weighting"]), *cells, end_section=row["weighting"] == "Sobolev")
    console.print(table)


def optimize(out: Path, samples: int) -> Solution:
    """The lightest plate, guided by the surrogate; pictures and ParaView files of both ends."""
    from sobofem import surrogate
    from sobofem.fem.library.plate_with_hole import plate_with_hole
    from sobofem.fem.output import picture, write_vtk

    plate = plate_with_hole()
    before = plate.evaluate(CIRCLE, jacobian=False)[0]
    round_hole = picture(plate, "von_mises")
    network = surrogate.load(out / f"plate_{samples}_sobolev.safetensors")
    solution = minimize(plate, TASK, start=CIRCLE, surrogate=network)
    plate.evaluate(solution.x, jacobian=False)
    fields, values = [round_hole, picture(plate, "von_mises")], [before, solution.optimum.y]
    demo_pictures.before_after(fields, values, plate.responses, out)
    write_vtk(plate, out / "optimum.pvd")
    return solution


def show_theory(solution: Solution) -> None:
    """What the optimum should look like: Cherepanov's hole of even stress in an infinite plate."""
    x = dict(zip(solution.optimum.parameters, solution.x, strict=True))
    console.print(
        "In an infinite plate the hole of even stress has radius_x / radius_y = traction_x / traction_y = "
        f"{LOAD['traction_x'] / LOAD['traction_y']:.3f}; here {x['radius_x'] / x['radius_y']:.3f}."
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo-output"), help="folder for everything that comes out")
    parser.add_argument("--samples", type=int, nargs="+", default=[16, 32, 64, 128], help="training set sizes")
    parser.add_argument("--unseen", type=int, default=256, help="points to judge on")
    parser.add_argument("--streamed", type=int, default=48, help="samples of the specimen")
    options = parser.parse_args()
    out, start = options.out, time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    largest = max(options.samples)

    console.rule("1  generate: finite-element solves with exact Jacobians")
    generate(out / "plate.h5", largest, seed=1)
    unseen = generate(out / "unseen.h5", options.unseen, seed=2)
    console.rule("2  train: the same network on values only and with sensitivities")
    rows = train_all(out, options.samples)
    show_errors(rows)
    demo_pictures.learning_curves(rows, out)
    (out / "errors.json").write_text(json.dumps(rows, indent=2) + "\n")
    from sobofem import surrogate

    write_report(surrogate.load(out / f"plate_{largest}_sobolev.safetensors"), unseen, out / "report")
    console.rule("3  optimize: the lightest plate with a stress concentration of at most 1.95, certified")
    solution = optimize(out, largest)
    (out / "optimum.json").write_text(json.dumps(solution.record(), indent=2) + "\n")
    show(solution, solution.archive.units, console)
    show_theory(solution)
    console.rule("4  stream: an elastic-plastic specimen, trained while it is solved")
    demo_pictures.stream_curves(stream(out, options.streamed), out)
    console.rule()
    console.print(f"{out}: pictures, datasets, surrogates and optimum.pvd for ParaView")
    console.print(f"done in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
