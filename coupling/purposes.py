"""What a study's surrogate is for: the options of `sobofem optimize`, `uq` and `calibrate` as records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from coupling.marginals import Marginal
from coupling.study import Files, Stage, said


@dataclass(frozen=True)
class Optimization:
    """The optimum of the model, found with the surrogate and certified.

    Attributes:
        objective: Response to minimize.
        at_most: Upper limits of responses, by name.
        at_least: Lower limits of responses, by name.
        fixed: Parameters that keep a value, by name.
        tolerance: Unbalanced slope, relative, up to which a point is an optimum.
        solves: Model solves that may be spent.
        name: What its files and messages are called.
    """

    objective: str
    at_most: Mapping[str, float] = field(default_factory=dict)
    at_least: Mapping[str, float] = field(default_factory=dict)
    fixed: Mapping[str, float] = field(default_factory=dict)
    tolerance: float = 1e-6
    solves: int = 100
    name: str = "optimum"

    def stage(self, files: Files) -> Stage:
        """`sobofem optimize`, guided by the surrogate; its solves are kept in a dataset of their own."""
        kept, out, picture = (files.folder / f"{self.name}{suffix}" for suffix in (".h5", ".json", ".png"))
        words = ["optimize", files.model, "--minimize", self.objective, "--surrogate", str(files.surrogate)]
        words += _pairs("--at-most", self.at_most) + _pairs("--at-least", self.at_least) + _pairs("--fix", self.fixed)
        words += ["--tolerance", repr(self.tolerance), "--solves", str(self.solves)]
        words += ["--data", str(kept), "--out", str(out), "--picture", str(picture)]
        return Stage(self.name, tuple(words), (files.surrogate,), (out, picture))


@dataclass(frozen=True)
class Uncertainty:
    """How uncertain the responses are, which inputs matter, and how probable failure is.

    Attributes:
        inputs: Distributions of inputs, by name; the others are uniform within their bounds.
        fixed: Inputs that are known, by name.
        fail: When the system has failed, as `stress > 235`; of several, when any holds.
        solves: Model solves that correct the estimates; 0 for none.
        name: What its files and messages are called.
    """

    inputs: Mapping[str, Marginal] = field(default_factory=dict)
    fixed: Mapping[str, float] = field(default_factory=dict)
    fail: tuple[str, ...] = ()
    solves: int = 32
    name: str = "uncertainty"

    def stage(self, files: Files) -> Stage:
        """`sobofem uq`."""
        out = files.folder / self.name
        words = ["uq", str(files.surrogate), "--out", str(out)]
        words += [word for name, how in self.inputs.items() for word in ("--input", f"{name}={said(how)}")]
        words += _pairs("--fix", self.fixed) + [word for text in self.fail for word in ("--fail", text)]
        words += ["--model", files.model, "--solves", str(self.solves)] if self.solves else []
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
        name: What its files and messages are called.
    """

    measurements: Path
    priors: Mapping[str, Marginal] = field(default_factory=dict)
    fixed: Mapping[str, float] = field(default_factory=dict)
    unknown_noise: bool = False
    solves: int = 32
    name: str = "calibration"

    def stage(self, files: Files) -> Stage:
        """`sobofem calibrate`."""
        out, measured = files.folder / self.name, Path(self.measurements)
        words = ["calibrate", str(files.surrogate), str(measured), "--out", str(out)]
        words += [word for name, how in self.priors.items() for word in ("--prior", f"{name}={said(how)}")]
        words += _pairs("--fix", self.fixed) + (["--unknown-noise"] if self.unknown_noise else [])
        words += ["--model", files.model, "--solves", str(self.solves)] if self.solves else []
        return Stage(self.name, tuple(words), (files.surrogate, measured), (out / "calibration.json",))


def _pairs(option: str, values: Mapping[str, float]) -> list[str]:
    """`--option NAME=VALUE` of each."""
    return [word for name, value in values.items() for word in (option, f"{name}={float(value)!r}")]
