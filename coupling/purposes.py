"""What a study's surrogate is for: the options of `sobofem optimize`, `uq` and `calibrate` as records.

Fields that keep their defaults are not said on the command line: the commands have the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from coupling.marginals import Marginal
from coupling.study import Files, Stage, said


@dataclass(frozen=True)
class Optimization:
    """The optimum of the model, found with the surrogate and certified; or a front of several objectives.

    Attributes:
        objective: Response to minimize, or weights by name of a sum of responses: -1 maximizes one.
        at_most: Upper limits of responses, by name.
        at_least: Lower limits of responses, by name.
        fixed: Parameters that keep a value, by name.
        one_of: Parameters that take one of some values, by name.
        start: Where parameters start, by name, instead of in the middle.
        tolerance: Unbalanced slope, relative, up to which a point is an optimum.
        solves: Model solves that may be spent.
        seed: Of all that is drawn.
        pareto: Points of the front of all objectives to certify, instead of one optimum; 0 for that.
        ranks_per_solve: Groups of so many MPI ranks solve candidates in parallel; where None all ranks solve each.
        name: What its files and messages are called.
    """

    objective: str | Mapping[str, float]
    at_most: Mapping[str, float] = field(default_factory=dict)
    at_least: Mapping[str, float] = field(default_factory=dict)
    fixed: Mapping[str, float] = field(default_factory=dict)
    one_of: Mapping[str, Sequence[float]] = field(default_factory=dict)
    start: Mapping[str, float] = field(default_factory=dict)
    tolerance: float = 1e-6
    solves: int = 100
    seed: int = 0
    pareto: int = 0
    ranks_per_solve: int | None = None
    name: str = "optimum"

    def stage(self, files: Files) -> Stage:
        """`sobofem optimize`, guided by the surrogate; its solves are kept in a dataset of their own."""
        kept, out, picture = (files.folder / f"{self.name}{suffix}" for suffix in (".h5", ".json", ".png"))
        words = ["optimize", files.model, *self._objectives(), "--surrogate", str(files.surrogate)]
        words += _pairs("--at-most", self.at_most) + _pairs("--at-least", self.at_least) + _pairs("--fix", self.fixed)
        for name, values in self.one_of.items():
            words += ["--one-of", f"{name}={','.join(repr(float(value)) for value in values)}"]
        words += _pairs("--start", self.start)
        words += _changed(self, ("tolerance", "solves", "seed", "pareto", "ranks_per_solve"))
        words += ["--data", str(kept), "--out", str(out), "--picture", str(picture)]
        return Stage(self.name, tuple(words), (files.surrogate,), (out, picture))

    def _objectives(self) -> list[str]:
        if isinstance(self.objective, str):
            return ["--minimize", self.objective]
        return [
            word
            for name, weight in self.objective.items()
            for word in ("--minimize" if weight >= 0.0 else "--maximize", f"{name}={abs(float(weight))!r}")
        ]


@dataclass(frozen=True)
class Uncertainty:
    """How uncertain the responses are, which inputs matter, and how probable failure is.

    Attributes:
        inputs: Distributions of inputs, by name; the others are uniform within their bounds.
        fixed: Inputs that are known, by name.
        fail: When the system has failed, as `stress > 235`; of several, when any holds.
        solves: Model solves that correct the estimates; 0 for none.
        samples: Samples of the surrogate.
        method: How failure is sampled: `importance` or `subset`.
        seed: Of all that is drawn.
        allow_outside: Share of a distribution that may lie outside the bounds.
        ranks_per_solve: MPI ranks that solve one point together; as many as of the study where None.
        name: What its files and messages are called.
    """

    inputs: Mapping[str, Marginal] = field(default_factory=dict)
    fixed: Mapping[str, float] = field(default_factory=dict)
    fail: tuple[str, ...] = ()
    solves: int = 32
    samples: int = 2**14
    method: str = "importance"
    seed: int = 0
    allow_outside: float = 0.01
    ranks_per_solve: int | None = None
    name: str = "uncertainty"

    def stage(self, files: Files) -> Stage:
        """`sobofem uq`."""
        out = files.folder / self.name
        words = ["uq", str(files.surrogate), "--out", str(out)]
        words += _distributed("--input", self.inputs) + _pairs("--fix", self.fixed)
        words += [word for text in self.fail for word in ("--fail", text)]
        words += _changed(self, ("samples", "method", "seed", "allow_outside"))
        words += _solved(self, files) if self.solves else []
        return Stage(self.name, tuple(words), (files.surrogate,), (out / "results.json",))


@dataclass(frozen=True)
class Calibration:
    """Parameters from measurements, and how sure they are.

    Attributes:
        measurements: CSV file with the columns response, value and sd.
        priors: What is known of parameters beforehand, by name; the others are uniform within their bounds.
        fixed: Parameters that are known, by name.
        unknown_noise: Whether the size of the noise is learned, too.
        solves: Model solves that make the surrogate's draws the model's; 0 for no look at the model.
        certify: Model solves, at most, to confirm or correct the estimate.
        ignore_surrogate_error: Without solves: whether the surrogate is believed.
        starts: Starting points of the least squares on the surrogate.
        draws: Draws a chain.
        tune: Draws that warm a chain up.
        chains: Chains.
        seed: Of all that is drawn.
        axis: What `at` of the measurements is, for the picture: `displacement [mm]`.
        ranks_per_solve: MPI ranks that solve one draw together; as many as of the study where None.
        name: What its files and messages are called.
    """

    measurements: Path
    priors: Mapping[str, Marginal] = field(default_factory=dict)
    fixed: Mapping[str, float] = field(default_factory=dict)
    unknown_noise: bool = False
    solves: int = 32
    certify: int = 8
    ignore_surrogate_error: bool = False
    starts: int = 16
    draws: int = 1000
    tune: int = 300
    chains: int = 4
    seed: int = 0
    axis: str = ""
    ranks_per_solve: int | None = None
    name: str = "calibration"

    def stage(self, files: Files) -> Stage:
        """`sobofem calibrate`."""
        out, measured = files.folder / self.name, Path(self.measurements)
        words = ["calibrate", str(files.surrogate), str(measured), "--out", str(out)]
        words += _distributed("--prior", self.priors) + _pairs("--fix", self.fixed)
        words += _changed(self, ("unknown_noise", "ignore_surrogate_error"))
        words += _changed(self, ("starts", "draws", "tune", "chains", "seed", "axis"))
        words += [*_solved(self, files), *_changed(self, ("certify",))] if self.solves else []
        return Stage(self.name, tuple(words), (files.surrogate, measured), (out / "calibration.json",))


def _pairs(option: str, values: Mapping[str, float]) -> list[str]:
    """`--option NAME=VALUE` of each."""
    return [word for name, value in values.items() for word in (option, f"{name}={float(value)!r}")]


def _distributed(option: str, marginals: Mapping[str, Marginal]) -> list[str]:
    """`--option NAME=HOW` of each."""
    return [word for name, how in marginals.items() for word in (option, f"{name}={said(how)}")]


def _solved(purpose: Uncertainty | Calibration, files: Files) -> list[str]:
    """Which model is asked, how often, and by how many ranks."""
    ranks = purpose.ranks_per_solve or files.ranks_per_solve
    words = ["--model", files.model, "--solves", str(purpose.solves)]
    return words + (["--ranks-per-solve", str(ranks)] if ranks > 1 else [])


def _changed(purpose: Any, names: Iterable[str]) -> list[str]:
    """Options of fields whose values are not their defaults."""
    words: list[str] = []
    defaults = {each.name: each.default for each in fields(purpose)}
    for name in names:
        value, option = getattr(purpose, name), f"--{name.replace('_', '-')}"
        assert defaults[name] is not MISSING, name
        if value == defaults[name]:
            continue
        words += [option] if value is True else [option, repr(value) if isinstance(value, float) else str(value)]
    return words
