"""What every part of sobofem agrees on: a model maps parameters to responses and their Jacobian.

Nothing here imports a solver or a network. `fem.Problem`, `surrogate.Surrogate`, a closed-form test
function and a user's legacy code satisfy `Model` structurally; nobody inherits from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
import hashlib
import inspect
import numbers
from pathlib import Path
import sys
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sobofem.coupling.parallel.usercode import UserCode

Array = NDArray[np.float64]

type ProgressCallback = Callable[[int, int, str], None]
"""Called with what is done, of how much, and in words where the work stands."""


@runtime_checkable
class Model(Protocol):
    """A map from n parameters to m responses that knows its own derivative."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the n parameters."""

    @property
    def responses(self) -> tuple[str, ...]:
        """Names of the m responses."""

    @property
    def bounds(self) -> Array:
        """Bounds of the parameters, (n, 2)."""

    def evaluate(self, x: ArrayLike, *, jacobian: bool = True) -> tuple[Array, Array | None]:
        """Responses (m,) and, unless declined, dy/dx (m, n), in physical units at x (n,).

        Collective on the model's communicator, with the same arrays on every rank. A sample that can't be
        computed raises an exception that satisfies `SampleFailure`; a wrong argument raises `ValueError`.
        """


@runtime_checkable
class Products(Protocol):
    """What a model may offer besides: its Jacobian times vectors, without the Jacobian; for thousands of parameters."""

    def jvp(self, x: ArrayLike, directions: ArrayLike) -> Array:
        """Derivatives (k, m) of the responses at x (n,) along directions (k, n)."""

    def vjp(self, x: ArrayLike, weights: ArrayLike) -> Array:
        """Gradients (k, n) of the responses' sums with weights (k, m), at x (n,)."""


@runtime_checkable
class Curved(Protocol):
    """What a model may offer besides: second derivatives along vectors."""

    def hvp(self, x: ArrayLike, weights: ArrayLike, directions: ArrayLike) -> Array:
        """Hessian of the responses' sum with weights (m,), at x (n,), times directions (k, n): (k, n)."""


@runtime_checkable
class Gentle(Protocol):
    """What a model may offer besides: a second, more patient try where `evaluate` failed."""

    def evaluate_gently(self, x: ArrayLike, *, jacobian: bool = True) -> tuple[Array, Array | None]:
        """As `evaluate`, with gentler settings of the solver; it leaves no trace on what comes after."""


@runtime_checkable
class Recomputed(Protocol):
    """What a model may offer besides: its responses by a second way, to check the first."""

    def recompute(self, x: ArrayLike) -> tuple[Array, Array, Array]:
        """Responses (m,) at x (n,), the same by a second way, and the size (m,) of what they sum."""


@runtime_checkable
class CountsPivots(Protocol):
    """What a model may offer besides: whether the equilibria that its answers belong to are minima of an energy."""

    @property
    def negative_pivots(self) -> int | None:
        """Of the last evaluation: 0 where all equilibria are minima, None where that is not known."""


@runtime_checkable
class KnowsRest(Protocol):
    """What a model that counts pivots may offer besides: whether there were negative ones before any load."""

    @property
    def indefinite_at_rest(self) -> bool:
        """Of the last evaluation: then its problem is indefinite by nature, or never was stable."""


@runtime_checkable
class PredictsMany(Protocol):
    """What a model may offer besides: many points at once."""

    def predict(self, x: ArrayLike, *, jacobian: bool = True) -> tuple[Array, Array | None]:
        """Responses (N, m) and, unless declined, Jacobians (N, m, n) at points (N, n)."""


@runtime_checkable
class KnowsStandardDeviation(Protocol):
    """What a surrogate may offer besides: standard deviations of its own errors."""

    def standard_deviation(self, x: ArrayLike) -> tuple[Array, Array]:
        """Standard deviations of responses (N, m) and Jacobians (N, m, n) at points (N, n).

        Raises:
            TypeError: If it was trained such that it knows none.
        """


@runtime_checkable
class HasUnits(Protocol):
    """What a model may offer besides: units."""

    @property
    def units(self) -> Mapping[str, str]:
        """Unit of each parameter and response that has one, by name."""


@runtime_checkable
class HasDigest(Protocol):
    """What a model may offer besides: a digest of its definition."""

    @property
    def digest(self) -> str:
        """Changes whenever the model's definition does; empty where it has none."""


@runtime_checkable
class HasProvenance(Protocol):
    """What samples may offer besides: where they are from."""

    @property
    def provenance(self) -> Mapping[str, Any] | None:
        """Design, seed, distributions of inputs, digest of the model and the like, by name."""


@runtime_checkable
class HasComm(Protocol):
    """What a model of several MPI ranks offers besides."""

    @property
    def comm(self) -> Any:
        """The communicator of these ranks (`mpi4py.MPI.Comm`)."""


def name_of(model: object) -> str:
    """What a model, or a function that makes one, is called: a specification is its own name."""
    return model if isinstance(model, str) else str(getattr(model, "__name__", type(model).__name__))


def provenance_of(data: object) -> dict[str, Any]:
    """Where samples are from, as far as they say."""
    return dict(data.provenance or {}) if isinstance(data, HasProvenance) else {}


def units_of(model: object) -> dict[str, str]:
    """The units that a model or a dataset offers, by name; none where it offers none."""
    return dict(model.units or {}) if isinstance(model, HasUnits) else {}


def indefinite_at_rest(model: Model) -> bool:
    """Whether the last evaluation of a model is known to have begun with an indefinite tangent."""
    return isinstance(model, KnowsRest) and model.indefinite_at_rest


def negative_pivots(model: Model) -> int | None:
    """Negative pivots in the last evaluation of a model that counts them; None where unknown."""
    return model.negative_pivots if isinstance(model, CountsPivots) else None


@runtime_checkable
class SampleFailure(Protocol):
    """What an exception carries when a sample has no answer: recorded by an ensemble, never fatal to it."""

    reason: str
    load_factor: float


@runtime_checkable
class HasDescription(Protocol):
    """What samples may offer besides: the description of their model."""

    @property
    def description(self) -> Description:
        """What identifies the model."""


@dataclass(frozen=True)
class Description:
    """What identifies a model: enough to label its samples and to refuse those of another one.

    Attributes:
        name: The model's name, as the user called it.
        parameters: Names of the n parameters.
        responses: Names of the m responses.
        bounds: Bounds of the parameters, (n, 2).
        units: Unit of each parameter and response that has one, by name.
        digest: Changes whenever the model's definition does.
    """

    name: str
    parameters: tuple[str, ...]
    responses: tuple[str, ...]
    bounds: Array
    units: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""

    def label(self, name: str) -> str:
        """The name with its unit, as on an axis: `traction_x [MPa]`."""
        unit = self.units.get(name, "")
        return f"{name} [{unit}]" if unit else name


def describe(model: Model, *, name: str = "", source: Path | None = None) -> Description:
    """Read a model's description, and check that its parts fit together.

    Args:
        model: Any `Model`; it may also offer `units` (name to unit) and `digest` (str).
        name: What the user called it; by default the name of its class.
        source: File of the factory that made it. A model without a digest of its own has that of its source: of this
            file and of that of its class.

    Raises:
        TypeError: If it lacks a member of the contract.
        ValueError: If names repeat, or bounds have the wrong shape, order or are not finite.
    """
    if not isinstance(model, Model):
        wanted = ("parameters", "responses", "bounds", "evaluate")
        missing = [member for member in wanted if not hasattr(model, member)]
        raise TypeError(f"{type(model).__name__} is no Model: it lacks {', '.join(missing)}")
    parameters, responses = tuple(model.parameters), tuple(model.responses)
    names = parameters + responses
    repeated = sorted({n for n in names if names.count(n) > 1})
    if repeated:
        raise ValueError(f"names of parameters and responses must differ, but these repeat: {repeated}")
    return Description(
        name=name or type(model).__name__,
        parameters=parameters,
        responses=responses,
        bounds=checked_bounds(model.bounds, parameters),
        units=units_of(model),
        digest=(model.digest if isinstance(model, HasDigest) else "") or _source_digest(model, source),
    )


def checked_bounds(bounds: ArrayLike, parameters: tuple[str, ...]) -> Array:
    """Bounds as a float64 array (n, 2), each row finite and increasing; `ValueError` names the row that isn't."""
    box = np.array(bounds, dtype=np.float64)
    if box.shape != (len(parameters), 2):
        raise ValueError(f"bounds have shape {box.shape}, expected {(len(parameters), 2)} for {parameters}")
    for name, (low, high) in zip(parameters, box, strict=True):
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            raise ValueError(f"bounds of {name!r} are [{low:g}, {high:g}]; expected finite, lower before upper")
    return box


def checked_evaluation(
    model: Model, x: Array, *, jacobian: bool = True, gently: bool = False
) -> tuple[Array, Array | None]:
    """`model.evaluate(x)`, with shapes and finiteness checked: what a user's own model must return.

    Args:
        model: Any `Model`.
        x: Parameters, (n,).
        jacobian: Whether dy/dx is wanted.
        gently: Whether to call `evaluate_gently` instead, which the model must have then (`Gentle`).

    Returns:
        Arrays of their own: a model may overwrite its buffers later.

    Raises:
        TypeError: If the model has no gentle evaluation, and that is wanted; or it returned no real numbers.
        ValueError: If an array has the wrong shape, or holds NaN or infinity.
        EndsProgram: If the model tried to end the program.
    """
    m, n = len(model.responses), len(model.parameters)
    if gently and not isinstance(model, Gentle):
        raise TypeError(
            f"{type(model).__name__} has no evaluate_gently(x, *, jacobian=True), but a gentle try is wanted"
        )
    own = np.array(x, dtype=np.float64)  # which the model may change
    with UserCode(type(model).__name__):
        evaluate = model.evaluate_gently if gently and isinstance(model, Gentle) else model.evaluate
        answer = evaluate(own, jacobian=jacobian)
        if not (isinstance(answer, tuple) and len(answer) == 2):
            raise ValueError(f"evaluate returned {type(answer).__name__}, expected the pair (responses, jacobian)")
        y = real_numbers(answer[0], "responses")
        dy = None if answer[1] is None or not jacobian else real_numbers(answer[1], "a Jacobian")
    if y.shape != (m,):
        raise ValueError(f"evaluate returned responses of shape {y.shape}, expected {(m,)} for {model.responses}")
    if jacobian and (dy is None or dy.shape != (m, n)):
        shape = None if dy is None else dy.shape
        raise ValueError(f"evaluate returned a Jacobian of shape {shape}, expected {(m, n)}")
    if wrong := _not_finite(model, y, dy):
        point = dict(zip(model.parameters, np.asarray(x, dtype=np.float64).tolist(), strict=True))
        raise ValueError(f"evaluate returned NaN or infinity at {point}: {wrong}")
    return y, dy


def real_numbers(values: Any, what: str) -> Array:
    """What a user's code returned as a float64 array of its own: of real numbers, all of them there.

    Args:
        values: An array, nested lists, or a torch tensor, also one with a gradient.
        what: What that is, for the message.

    Raises:
        TypeError: If they are complex, text or other objects, or masked.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    try:
        found = np.asanyarray(values)
    except Exception as error:
        raise TypeError(f"evaluate returned {what} that make no array of numbers: {error}") from error
    if np.ma.is_masked(found):
        raise TypeError(f"evaluate returned {what} with masked entries; fill them, or raise an exception")
    if found.dtype.kind == "O" and all(isinstance(entry, numbers.Real) for entry in found.flat):
        found = found.astype(np.float64)
    if found.dtype.kind == "c" or (found.dtype.kind == "O" and any(isinstance(v, complex) for v in found.flat)):
        raise TypeError(
            f"evaluate returned {what} of complex numbers, whose imaginary part would be lost; return real numbers, "
            "such as real and imaginary part, or magnitude and phase, as responses of their own"
        )
    if found.dtype.kind not in "fiub":
        raise TypeError(f"evaluate returned {what} of type {found.dtype}, expected real numbers")
    return np.array(found, dtype=np.float64, subok=False)


def _not_finite(model: Model, y: Array, dy: Array | None) -> str:
    """The first entry that is not finite, by name; empty if all are."""
    for name, value in zip(model.responses, y.tolist(), strict=True):
        if not np.isfinite(value):
            return f"{name} is {value}"
    if dy is not None and not np.isfinite(dy).all():
        row, column = np.argwhere(~np.isfinite(dy))[0]
        return f"the derivative of {model.responses[row]} by {model.parameters[column]} is {dy[row, column]}"
    return ""


def _source_digest(model: Model, made_by: Path | None) -> str:
    """Digest of the files that define and make the model; empty where there is none (an interactive session)."""
    try:
        defined_by = Path(inspect.getsourcefile(type(model)) or "")
    except TypeError:
        defined_by = Path()
    files = [path.resolve() for path in (defined_by, made_by or Path()) if path.is_file()]
    contents = [path.read_bytes() for path in dict.fromkeys(files)]
    return hashlib.sha256(b"".join(contents)).hexdigest()[:16] if contents else ""
