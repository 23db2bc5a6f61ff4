"""Model cards: what a surrogate is, where it holds and how well, in Markdown to lie beside its file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sobofem.surrogate.export.program import MEANING
from sobofem.surrogate.export.program_files import versions
from sobofem.surrogate.model import Surrogate
from sobofem.surrogate.model.limits import limits
from sobofem.surrogate.networks.base import as_network_module
from sobofem.surrogate.samples import Data
from sobofem.surrogate.samples.arrays import Array

if TYPE_CHECKING:
    from sobofem.surrogate.model import Surrogate
from dataclasses import field
from pathlib import Path

_ONNX = """import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])
x = np.array([[{point}]], dtype=np.{precision})  # {names}
y, jacobian, inside = session.run(["y", "jacobian", "inside"], {{{inputs}}})"""
_TORCH = """import torch

program = torch.export.load("{file}").module()
x = torch.tensor([[{point}]], dtype=torch.{precision})  # {names}
found = program({inputs})
y, jacobian, inside = found["y"], found["jacobian"], found["inside"]"""
_SOBOFEM = """from sobofem import surrogate

model = surrogate.load("{file}")
y, jacobian = model.evaluate([{point}])  # {names}"""


@dataclass(frozen=True)
class ProgramFile:
    """A file that a model was written to.

    Attributes:
        name: Of the file, without a folder.
        precision: Of its numbers.
        hessian: Whether it takes directions, too.
        differences: Largest relative difference of each output from the surrogate, as `export_model` returned it.
    """

    name: str
    precision: str = "float64"
    hessian: bool = False
    differences: dict[str, float] = field(default_factory=dict)

    @property
    def tool(self) -> str:
        """What reads it."""
        return {".onnx": "ONNX Runtime", ".pt2": "PyTorch"}.get(Path(self.name).suffix, "sobofem")

    def snippet(self, parameters: Sequence[str], point: Sequence[float]) -> str:
        """Python lines that evaluate it at a point."""
        if self.tool == "ONNX Runtime":
            text, inputs = _ONNX, '"x": x, "direction": np.ones_like(x)' if self.hessian else '"x": x'
        elif self.tool == "PyTorch":
            text, inputs = _TORCH, "x, torch.ones_like(x)" if self.hessian else "x"
        else:
            text, inputs = _SOBOFEM, ""
        values = ", ".join(f"{value:g}" for value in point)
        return text.format(
            file=self.name, point=values, precision=self.precision, names=", ".join(parameters), inputs=inputs
        )


@dataclass(frozen=True, eq=False)
class Quality:
    """How a surrogate did on samples that it had not seen.

    Attributes:
        samples: How many there were.
        values: Root mean square error of each response over its standard deviation (m,).
        derivatives: The same of each Jacobian entry (m, n), or None if it wasn't judged.
        coverage: Share of the samples within the interval of each response (m,), or None without intervals.
        derivative_coverage: The same of each Jacobian entry (m, n), or None.
        level: Share that the intervals should hold.
        data: What the samples were, in a few words.
    """

    samples: int
    values: Array
    derivatives: Array | None = None
    coverage: Array | None = None
    derivative_coverage: Array | None = None
    level: float = 0.95
    data: str = "unseen samples"


def card(
    surrogate: Surrogate, *, name: str = "Surrogate", files: Sequence[ProgramFile] = (), quality: Quality | None = None
) -> str:
    """The card of a surrogate.

    Args:
        surrogate: What to describe.
        name: What to call it.
        files: Where it was written to, with what the card should tell of each.
        quality: How well it did, if that was judged.

    Raises:
        ValueError: If the quality is that of other responses or parameters.
    """
    m, n = len(surrogate.responses), len(surrogate.parameters)
    if quality is not None:
        _check(quality, m, n)
    sections = [
        f"# {name}\n\nMaps {n} parameters to {m} responses and their derivatives, in physical units.",
        _inputs(surrogate),
        _outputs(surrogate),
        _training(surrogate),
        *_limits(surrogate),
        *(_quality(surrogate, quality) if quality is not None else ()),
        *(_loading(surrogate, files) if files else ()),
        "## Made with\n\n" + ", ".join(f"{package} {version}" for package, version in versions().items()),
    ]
    return "\n\n".join(sections) + "\n"


def _inputs(surrogate: Surrogate) -> str:
    rows = [
        [parameter, surrogate.units.get(parameter, ""), f"{low:.10g}", f"{high:.10g}"]
        for parameter, (low, high) in zip(surrogate.parameters, surrogate.bounds, strict=True)
    ]
    return (
        "## Parameters\n\n"
        + _table(["parameter", "unit", "from", "to"], rows)
        + "\n\nNothing was learned outside this box: there `evaluate` and `predict` refuse, and a program file returns "
        "`inside` = false beside numbers that mean nothing."
    )


def _outputs(surrogate: Surrogate) -> str:
    scaling = surrogate.scaling
    rows = [
        [response, surrogate.units.get(response, ""), f"{center:.6g}", f"{scale:.6g}"]
        for response, center, scale in zip(surrogate.responses, scaling.y_center, scaling.y_scale, strict=True)
    ]
    return "## Responses\n\n" + _table(["response", "unit", "mean in training", "standard deviation"], rows)


def _training(surrogate: Surrogate) -> str:
    """Data, network and course, as far as they are known."""
    history = surrogate.history
    known = {key: _plain(value) for key, value in surrogate.provenance.items()}
    rows = [[key.replace("_", " "), text] for key, text in known.items() if text]
    rows.append(["network", f"`{surrogate.network}`"])
    if len(history.step):
        best = int(np.abs(history.step - history.best).argmin())
        start, stages = 0, []
        for stage, end in history.stages:
            stages.append(f"{stage} {end - start} steps")
            start = end
        rows.append(["stages", ", ".join(stages) + (", stopped by hand" if history.interrupted else "")])
        rows.append(["weights", _weights(history.weights)])
        rows.append(["best", f"step {history.best}, relative loss {history.train[best]:.3g}"])
        if math.isfinite(history.validation[best]):
            rows.append(["held out", f"relative loss {history.validation[best]:.3g}"])
    return "## Data and training\n\n" + _table(["", ""], rows)


def _limits(surrogate: Surrogate) -> Iterable[str]:
    """What limits each response, if anything is known of that."""
    if sentences := limits(surrogate):
        yield "## What limits it\n\n" + "\n".join(f"- {sentence}" for sentence in sentences)


def _weights(weights: Array) -> str:
    """What the loss weighed, seen from its weights (T, m, 1 + n)."""
    if not weights.size:
        return "unknown"
    if not weights[:, :, 1:].any():
        return "values only"
    adapted = bool((weights != weights[:1]).any())
    return "values and derivatives, " + ("adapted during training" if adapted else "the same throughout")


def _quality(surrogate: Surrogate, quality: Quality) -> Iterable[str]:
    yield (
        f"## Errors\n\nOn {quality.samples} samples ({quality.data}): root mean square errors, each over the standard "
        "deviation of what it measures; 1 is as good as the mean."
    )
    yield _matrix(surrogate, "value", quality.values, quality.derivatives)
    if quality.coverage is not None:
        yield (
            f"Share of these samples within the surrogate's {100 * quality.level:g} % intervals "
            "(values and derivatives taken as normally distributed):"
        )
        yield _matrix(surrogate, "value", quality.coverage, quality.derivative_coverage)


def _matrix(surrogate: Surrogate, label: str, values: Array, derivatives: Array | None) -> str:
    heading = ["response", label]
    heading += [] if derivatives is None else [f"d/d {parameter}" for parameter in surrogate.parameters]
    slopes = np.empty((len(values), 0)) if derivatives is None else derivatives
    rows = [
        [response, *("no label" if math.isnan(number) else f"{number:.3g}" for number in (value, *row))]
        for response, value, row in zip(surrogate.responses, values, slopes, strict=True)
    ]
    return _table(heading, rows)


def _loading(surrogate: Surrogate, files: Sequence[ProgramFile]) -> Iterable[str]:
    low, high = surrogate.bounds.T
    for file in files:
        lines = file.snippet(surrogate.parameters, (low + high) / 2)
        yield f"## {file.name}, with {file.tool}\n\n```python\n{lines}\n```"
        if file.differences:
            rows = [[f"`{output}`", MEANING[output], f"{d:.1e}"] for output, d in file.differences.items()]
            rows.append(["`inside`", MEANING["inside"], ""])
            yield (
                f"Numbers are {file.precision}; N may be any number of points from 1 on. Differences from the "
                "surrogate are relative to the largest entry of each response.\n\n"
                + _table(["output", "", "difference"], rows)
            )


def _check(quality: Quality, m: int, n: int) -> None:
    shapes = {"values": (m,), "derivatives": (m, n), "coverage": (m,), "derivative_coverage": (m, n)}
    for name, shape in shapes.items():
        array = vars(quality)[name]
        if array is not None and np.shape(array) != shape:
            raise ValueError(f"{name} has shape {np.shape(array)}, expected {shape} for this surrogate")


def _table(heading: list[str], rows: list[list[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return " ".join(str(value).split())


def coverage(surrogate: Surrogate, data: Data, *, level: float = 0.95) -> tuple[Array, Array | None] | None:
    """Share of samples within the surrogate's intervals, of values (m,) and of derivatives (m, n).

    Args:
        surrogate: Its module may offer `standard_deviation`.
        data: Samples that it hasn't seen.
        level: Share that an interval should hold, errors taken as normally distributed.

    Returns:
        Both shares; None for derivatives if the data holds none, and None for all without `standard_deviation`.
    """
    if not as_network_module(module := surrogate.module).has_standard_deviation:
        return None
    x, scaling, reach = np.asarray(data.x), surrogate.scaling, NormalDist().inv_cdf(0.5 + level / 2)
    y, jacobian = surrogate.predict(x)
    with torch.no_grad():
        deviations = as_network_module(module).standard_deviation(torch.from_numpy(scaling.scale_x(x)))
    of_y, of_jacobian = (deviation.numpy() for deviation in deviations)
    values = _covered(y - np.asarray(data.y), reach * scaling.y_scale * of_y)
    if data.jacobian is None or jacobian is None:
        return values, None
    return values, _covered(jacobian - np.asarray(data.jacobian), reach * scaling.unscale_jacobian(of_jacobian))


def _covered(errors: Array, widths: Array) -> Array:
    """Share of errors (N, ...) within these widths, of those that are known; NaN without any."""
    known = ~np.isnan(errors)
    count = known.sum(axis=0)
    return np.where(
        count > 0, (np.abs(np.nan_to_num(errors)) <= widths).sum(axis=0, where=known) / np.maximum(count, 1), np.nan
    )
