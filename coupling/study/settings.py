"""Settings of what every study does: where to sample, and how the surrogate is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sobofem.coupling.dataset.imported import MARGIN
from sobofem.coupling.design import KINDS, Design, Grid, Recipe
from sobofem.coupling.design.marginals import Marginal
from sobofem.coupling.design.own import KIND, OwnDesign
from sobofem.coupling.design.points import PointsFile
from sobofem.coupling.options import option
from sobofem.coupling.options.readings import Levels, Named, Names, distributions, exact, number

DESCENT = "With --descent"
"""Heading of the options that training by descent has."""

TABLE = "Columns of a table"
"""Heading of the options that say what columns are."""

DISTRIBUTION = "uniform (the default), log, normal:MEAN,STD or lognormal:MEDIAN,STD_OF_LOG"
"""How a distribution is written."""

ANY_DISTRIBUTION = f"{DISTRIBUTION}, or a continuous one of SciPy, as weibull_min:c=2,scale=3"
"""How that of an input is."""


def _interval(text: str) -> tuple[float, float]:
    low, _, high = text.partition(",")
    return number(low), number(high)


INTERVALS = Named[tuple[float, float]](
    "NAME=LOW,HIGH",
    "young=190e3,220e3",
    _interval,
    lambda each: ",".join(map(exact, each)),
)
"""Texts NAME=LOW,HIGH of ranges."""


@dataclass(frozen=True)
class Sampling:
    """Where to evaluate a model: a design with its size and seed, levels, or points of one's own."""

    samples: int | None = option(None, help="Number of samples, 64 by default; powers of two suit Sobol'.", min=1)
    design: str = option(
        "sobol",
        help=f"How the points are spread: {', '.join(KINDS)}; or {KIND}, as a model of fields draws them itself. "
        f"Sobol', Halton and {KIND} can grow later.",
    )
    seed: int = option(0, help="Seed of the design.", min=0)
    levels: int | Mapping[str, int] | None = option(
        None, help="A full factorial design instead: levels of all inputs, or of one (repeat).", reading=Levels()
    )
    points: Path | None = option(
        None, help="Points of your own instead: CSV with a header of the inputs' names, or NumPy (.npy)."
    )
    inputs: Mapping[str, Marginal] = option(
        dict,
        flags="--input",
        help=f"How an input is distributed within its bounds: {ANY_DISTRIBUTION}. Repeat for others.",
        reading=distributions("young=normal:70e3,2e3"),
    )

    def recipe(self) -> Recipe:
        """The design that the options describe, as a recipe.

        Raises:
            ValueError: If two options contradict each other.
        """
        if (self.samples is not None) + (self.levels is not None) + (self.points is not None) > 1:
            raise ValueError("--samples, --levels and --points each say where to evaluate; give one of them")
        if self.points is not None:
            if self.inputs:
                raise ValueError("--input distributes the points of a design; --points says where they are")
            return PointsFile(self.points)
        if self.levels is not None:
            return Grid(self.levels, self.inputs)
        if self.design == KIND:
            if self.inputs:
                raise ValueError(
                    f"--input distributes the points of a design in a box; with --design {KIND} the model does"
                )
            return OwnDesign(self.samples or 64, self.seed)
        return Design(self.design, self.samples or 64, self.seed, self.inputs)

    @classmethod
    def of(cls, recipe: Recipe) -> Sampling:
        """The settings that ask for a recipe."""
        if isinstance(recipe, PointsFile):
            return cls(points=recipe.path)
        if isinstance(recipe, Grid):
            return cls(levels=recipe.levels, inputs=recipe.marginals)
        if isinstance(recipe, OwnDesign):
            return cls(recipe.samples, recipe.kind, recipe.seed)
        assert isinstance(recipe, Design), "a study has refused others"
        return cls(recipe.samples, recipe.kind, recipe.seed, inputs=recipe.marginals)


@dataclass(frozen=True)
class Table:
    """What the columns of another program's table are."""

    parameters: Sequence[str] = option(
        tuple,
        help="Columns of the parameters, or patterns such as 'x*'; by default what the derivatives are by.",
        reading=Names(),
        panel=TABLE,
    )
    responses: Sequence[str] = option(
        tuple,
        help="Columns of the responses, likewise; of one kind alone the rest is the other.",
        reading=Names(),
        panel=TABLE,
    )
    derivatives: str = option(
        "",
        metavar="PATTERN",
        help="How derivatives are called, as grad_{response}_{parameter}; d(y)/d(x), dy/dx, dy_dx by default.",
        panel=TABLE,
    )
    bounds: Mapping[str, tuple[float, float]] = option(
        dict,
        help="Range of a parameter; by default that of the samples, widened. Repeatable.",
        reading=INTERVALS,
        panel=TABLE,
    )
    margin: float = option(
        MARGIN, help="By which share the range of the samples is widened on either side.", min=0.0, panel=TABLE
    )
    keep_repeats: bool = option(
        False, help="A point may occur several times with other responses, as measurements do.", panel=TABLE
    )


@dataclass(frozen=True)
class Training:
    """How the surrogate is trained; by default as `surrogate.fit` does."""

    seed: int = option(0, help="Of all that is drawn.", min=0)
    samples: int | None = option(None, help="Use the first so many design rows; all by default.")
    budget: float | None = option(
        None,
        help="Seconds that training may take: the best surrogate of that time, however large the data [s]; as long as "
        "it takes by default.",
        min=0.1,
    )
    descent: bool = option(False, help="Train one perceptron by descent, as the options below say.")
    width: int | None = option(None, help="Units of a hidden layer; 48 by default.", min=1, panel=DESCENT)
    depth: int | None = option(None, help="Number of hidden layers; 3 by default.", min=1, panel=DESCENT)
    activation: str | None = option(None, help="tanh, softplus (the default) or sine.", panel=DESCENT)
    network: str | None = option(
        None,
        help="Class of a network of your own (`sobofem --use FILE`), or of ours; MLP by default, and between fields "
        "what fits the data.",
        panel=DESCENT,
    )
    steps: int | None = option(
        None, help="Steps of training between fields, of 8 samples each; 4,000 by default.", min=1, panel=DESCENT
    )
    weighting: str | None = option(
        None,
        help="Weights of values and sensitivities: per-channel (the default where the data holds Jacobians), "
        "values-only, fixed, or the class of one of your own (`sobofem --use FILE`), or of ours.",
        panel=DESCENT,
    )
    validation: float | None = option(
        None,
        help="Share of the samples held out to stop early by; few samples train better on all.",
        panel=DESCENT,
    )
    threads: int = option(1, help="CPU threads; one is fastest up to some 10,000 samples.", min=1)
    device: str = option("cpu", help="Where to train: cpu, cuda or cuda:1.")
