"""What a study's surrogate is for: the settings of `sobofem optimize`, `uq` and `calibrate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from sobofem.coupling.design.marginals import Marginal
from sobofem.coupling.options import option
from sobofem.coupling.options.readings import CHOICES, Texts, Weights, distributions, values
from sobofem.coupling.study import Call, Files, Stage
from sobofem.coupling.study.settings import ANY_DISTRIBUTION, DISTRIBUTION

MODEL = "With --model"
"""Heading of the options that ask the model."""

UNCERTAIN = "Under uncertain inputs"
"""Heading of the options of robust and reliable designs."""

DRAWS = "Draws on the surrogate"
"""Heading of the options of a chain."""


class Predictors(StrEnum):
    """What proposes the next point of a search."""

    AUTOMATIC = "automatic"
    QUASI_NEWTON = "quasi-newton"


@dataclass(frozen=True)
class Optimization:
    """The optimum of the model, found with the surrogate and certified; or a front of several objectives.

    As an attribute, the objective is the name of a response, or weights by name: -1 maximizes one. `name` is what its
    files and messages are called.
    """

    objective: str | Mapping[str, float] = option(
        flags="--minimize --maximize",
        help="Response to minimize; repeated, their weighted sum.\nResponse to maximize; as --minimize.",
        reading=Weights(),
    )
    at_most: Mapping[str, float] = option(
        dict, help="Upper limit of a response; repeatable.", reading=values("stress=200")
    )
    at_least: Mapping[str, float] = option(
        dict, help="Lower limit of a response; repeatable.", reading=values("stiffness=3.5")
    )
    equal: Mapping[str, float] = option(
        dict, help="Value that a response is to have, an equation; repeatable.", reading=values("volume=0.5")
    )
    fixed: Mapping[str, float] = option(
        dict, flags="--fix", help="Keep a parameter at a value; repeatable.", reading=values("load=10")
    )
    one_of: Mapping[str, Sequence[float]] = option(
        dict,
        help="A parameter takes one of these values, such as 1,2,5, or 17..28, or 0.5..6:0.5; repeatable.",
        reading=CHOICES,
    )
    start: Mapping[str, float] = option(
        dict, help="Where a parameter starts, instead of the middle; repeatable.", reading=values("width=1.5")
    )
    tolerance: float = option(1e-6, help="KKT residual and violation of an optimum, relative.")
    solves: int = option(100, help="Model solves that may be spent, each with its Jacobian.", min=1)
    starts: int = option(
        1, help="Points to solve first where there are no samples: the start, others spread over the box.", min=1
    )
    predictors: Predictors = option(
        Predictors.AUTOMATIC, help="What is learned of all samples proposes points, or plain quasi-Newton expansions."
    )
    seed: int = option(0, help="Of everything that is drawn.", min=0)
    pareto: int = option(0, metavar="POINTS", help="Certify so many points of the front of all objectives.", min=0)
    confirm_on: str | None = option(
        None,
        metavar="MODEL",
        help="Another model, as of a finer mesh, that is solved once at the optimum: what it says is shown beside.",
    )
    ranks_per_solve: int | None = option(
        None, help="Groups of so many MPI ranks solve candidates in parallel; all solve each together if left out."
    )
    inputs: Mapping[str, Marginal] = option(
        dict,
        flags="--input",
        help=f"How an uncertain input is distributed: {ANY_DISTRIBUTION}, cut off at the bounds. Repeat for others; "
        "those of which nothing is said are the design.",
        reading=distributions("load=normal:100,8"),
        panel=UNCERTAIN,
    )
    correlated: Mapping[str, float] = option(
        dict,
        flags="--correlate",
        help="Correlation coefficient of two of them; other pairs have none. Repeatable.",
        reading=values("young,density=0.6", "NAME,NAME=VALUE"),
        panel=UNCERTAIN,
    )
    deviations: float | None = option(
        None, help="Objective and limits are those of mean and so many standard deviations.", min=0.0, panel=UNCERTAIN
    )
    failure_probability: float | None = option(
        None,
        help="Each limit may be passed with this probability, to first order; the objective is that at the medians.",
        panel=UNCERTAIN,
    )
    samples: int = option(
        128,
        help="With --deviations: points of the uncertain inputs, at which each design is solved.",
        min=2,
        panel=UNCERTAIN,
    )
    allow_outside: float = option(
        0.01, help="Share of a distribution that may lie outside the bounds.", min=0.0, max=1.0, panel=UNCERTAIN
    )
    name: str = field(default="optimum", compare=False)

    def stage(self, files: Files) -> Stage:
        """`sobofem optimize`, guided by the surrogate; its solves are kept in a dataset of their own."""
        kept, out, picture = (files.folder / f"{self.name}{suffix}" for suffix in (".h5", ".json", ".png"))
        arguments = {
            **{"model": files.model, "settings": self, "surrogate": files.surrogate},
            **{"data": kept, "out": out, "picture": picture},
        }
        return Stage(self.name, Call("optimize", arguments), (files.surrogate,), (out, picture))


class Method(StrEnum):
    """Ways to sample failure."""

    IMPORTANCE = "importance"
    SUBSET = "subset"


@dataclass(frozen=True)
class Uncertainty:
    """How uncertain the responses are, which inputs matter, and how probable failure is.

    In a study, `solves=0` asks the surrogate alone. `name` is what its files and messages are called.
    """

    inputs: Mapping[str, Marginal] = option(
        dict,
        flags="--input",
        help=f"How an input is distributed: {ANY_DISTRIBUTION}, cut off at the bounds. Repeat for others.",
        reading=distributions("young=normal:70e3,2e3"),
    )
    fixed: Mapping[str, float] = option(
        dict, flags="--fix", help="An input that is known; repeatable.", reading=values("poisson=0.3")
    )
    correlated: Mapping[str, float] = option(
        dict,
        flags="--correlate",
        help="Correlation coefficient of two inputs; other pairs have none. Repeatable.",
        reading=values("young,density=0.6", "NAME,NAME=VALUE"),
    )
    fail: tuple[str, ...] = option(
        tuple,
        help="When the system has failed, as `stress > 235` or `reserve < 0`; of several, when any holds.",
        reading=Texts("'NAME > VALUE'"),
    )
    solves: int = option(
        32, help="Solves for distributions, and as many again for failure; with --model.", min=4, needs="model"
    )
    samples: int = option(2**14, help="Samples of the surrogate; powers of two suit.", min=1024)
    method: Method = option(Method.IMPORTANCE, help="How failure is sampled: around design points, or level by level.")
    seed: int = option(0, help="Of all that is drawn.", min=0)
    allow_outside: float = option(
        0.01, help="Share of a distribution that may lie outside the bounds.", min=0.0, max=1.0
    )
    ranks_per_solve: int | None = option(
        None,
        help="MPI ranks that solve one point together; one, the default, is best as long as it fits in memory.",
        min=1,
        needs="model",
    )
    name: str = field(default="uncertainty", compare=False)

    def stage(self, files: Files) -> Stage:
        """`sobofem uq`."""
        out = files.folder / self.name
        arguments = {"surrogate": files.surrogate, "out": out, **_with_model(self, files)}
        return Stage(self.name, Call("uq", arguments), (files.surrogate,), (out / "results.json",))


@dataclass(frozen=True)
class Calibration:
    """Parameters from measurements, and how sure they are.

    In a study, `solves=0` asks the surrogate alone. `name` is what its files and messages are called.
    """

    measurements: Path = option(
        help="CSV file with the columns response, value and sd; a column `at` (a displacement, a time) is for the "
        "picture. Semicolons, tabs and decimal commas are read, too.",
        positional=True,
    )
    priors: Mapping[str, Marginal] = option(
        dict,
        flags="--prior",
        help=f"What is known of a parameter beforehand: {DISTRIBUTION}, all cut to its bounds; repeatable.",
        reading=distributions("young=normal:200e3,5e3", "NAME=DISTRIBUTION"),
    )
    fixed: Mapping[str, float] = option(
        dict, flags="--fix", help="A parameter that is known; repeatable.", reading=values("young=200e3")
    )
    unknown_noise: bool = option(False, help="Learn the size of the noise: sd are only ratios, or left out.")
    solves: int = option(
        32, help="Solves at draws, to make them draws by the model.", min=0, panel=MODEL, needs="model"
    )
    certify: int = option(
        8, help="Solves, at most, to confirm or correct the estimate.", min=1, panel=MODEL, needs="model"
    )
    ignore_surrogate_error: bool = option(
        False,
        help="Without --model: believe the surrogate, instead of adding its own standard deviations to the noise.",
    )
    starts: int = option(16, help="Starting points of the least squares on the surrogate.", min=1)
    draws: int = option(1000, help="Draws a chain.", min=10, panel=DRAWS)
    tune: int = option(300, help="Draws that warm a chain up.", min=10, panel=DRAWS)
    chains: int = option(4, help="Chains, started apart.", min=2, panel=DRAWS)
    seed: int = option(0, help="Of all that is drawn.", min=0)
    axis: str = option("", help="What `at` is, for the picture: 'displacement [mm]'.")
    ranks_per_solve: int | None = option(
        None, help="MPI ranks that solve one draw together; one by default.", min=1, panel=MODEL, needs="model"
    )
    name: str = field(default="calibration", compare=False)

    def stage(self, files: Files) -> Stage:
        """`sobofem calibrate`."""
        out, measured = files.folder / self.name, Path(self.measurements)
        asking = _with_model(replace(self, measurements=measured), files)
        arguments = {"surrogate": files.surrogate, "out": out, **asking}
        return Stage(self.name, Call("calibrate", arguments), (files.surrogate, measured), (out / "calibration.json",))


@dataclass(frozen=True)
class TwoScales:
    """A law learned of a cell, the study's model, until a structure that is solved with it is certified.

    `name` is what its folder and messages are called.
    """

    part: str = option(
        help="What makes the structure of a law, called with law=: `file.py:name`, or a problem of the library.",
        positional=True,
    )
    tolerance: float = option(0.01, help="Relative error that the structure's responses may have.")
    states: int = option(
        4, help="Points of the structure's box at which it is certified; the first is its middle.", min=1
    )
    points: int = option(
        24, help="Quadrature points that are drawn for each certificate, at which cells are solved.", min=4
    )
    rounds: int = option(5, help="Laws, at most: each learns what certificates asked of the cell before.", min=1)
    width: int = option(24, help="Units of a hidden layer.", min=1)
    depth: int = option(2, help="Number of hidden layers.", min=1)
    iterations: int = option(1000, help="Of L-BFGS, for each of the two networks of a round.", min=10)
    seed: int = option(0, help="Of all that is drawn.", min=0)
    ranks_per_solve: int | None = option(None, help="MPI ranks that solve one cell together; one by default.", min=1)
    name: str = field(default="law", compare=False)

    def stage(self, files: Files) -> Stage:
        """`sobofem two-scales`."""
        out, source = files.folder / self.name, Path(self.part.rpartition(":")[0])
        ranks = self.ranks_per_solve or files.ranks_per_solve
        settings = replace(self, ranks_per_solve=ranks if ranks > 1 else None)
        arguments = {"cell": files.model, "settings": settings, "data": files.data, "out": out}
        reads = (files.data, source) if source.suffix == ".py" else (files.data,)
        return Stage(self.name, Call("two-scales", arguments), reads, (out / "results.json",))


def _with_model(purpose: Uncertainty | Calibration, files: Files) -> dict[str, Any]:
    """Settings and model of a purpose, solved by as many ranks together as the study says where it doesn't."""
    ranks = purpose.ranks_per_solve or files.ranks_per_solve
    settings = replace(purpose, ranks_per_solve=ranks if ranks > 1 else None)
    return {"settings": settings, "model": files.model if purpose.solves else None}
