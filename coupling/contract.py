"""What every part of sobofem agrees on: a model maps parameters to responses and their Jacobian.

Nothing here imports a solver or a network. `fem.Problem`, `surrogate.Surrogate`, a closed-form test
function and a user's legacy code satisfy `Model` structurally; nobody inherits from it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
import hashlib
import inspect
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
class Sampled(Protocol):
    """What a model may offer besides: how its inputs are distributed, where they are thousands that belong together."""

    def sample(self, count: int, seed: Any) -> Array:
        """Points (count, n) for a seed as `numpy.random.default_rng` takes it; more of them begin with the same."""


@runtime_checkable
class MapsFields(Protocol):
    """What a model may offer besides: that its parameters and responses are fields on a mesh."""

    @property
    def on_mesh(self) -> Any:
        """Where they are: anything with the attributes of `coupling.dataset.mesh.OnMesh`; None where they aren't."""


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
class WarmStarting(Protocol):
    """What a model may offer besides: to find an answer from those before, where that is safe."""

    def warm_start(self) -> None:
        """Do so from now on; answers stay the same, but for the solver's tolerance."""


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
class KnowsOutside(Protocol):
    """What a model may offer besides: whether parts of it were used outside of what they were made for."""

    @property
    def share_outside(self) -> float | None:
        """Of the last evaluation: share of the points where a law is outside of what it learned; None without any.

        Collective on the model's communicator.
        """


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


LISTED = 40
"""Of thousands of parameters, how many lines of a table or a summary are shown: those at both ends."""


def shown(count: int) -> tuple[list[int], int]:
    """Which of so many lines are shown, and after how many of these the others would come; 0 if all are."""
    if count <= LISTED:
        return [*range(count)], 0
    half = LISTED // 4
    return [*range(half), *range(count - half, count)], half


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


def share_outside(model: Model) -> float:
    """Share of the points of the last evaluation where a model's law is outside of what it learned; 0 without any."""
    return (model.share_outside or 0.0) if isinstance(model, KnowsOutside) else 0.0


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
        on_mesh: Where on a mesh parameters and responses are (`coupling.dataset.mesh.OnMesh`); None where they aren't.
    """

    name: str
    parameters: tuple[str, ...]
    responses: tuple[str, ...]
    bounds: Array
    units: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""
    on_mesh: Any = None

    @cached_property
    def reach(self) -> Array:
        """The bounds, checked, and widened by round-off: what a sample may have, (n, 2).

        Raises:
            ValueError: If a row is not finite and increasing.
        """
        low, high = checked_bounds(self.bounds, self.parameters).T
        slack = 1e-12 * (high - low) + 1e-14 * np.maximum(np.abs(low), np.abs(high))
        return np.stack([low - slack, high + slack], axis=1)

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
    repeated = sorted(n for n, count in Counter(names).items() if count > 1)
    if repeated:
        raise ValueError(f"names of parameters and responses must differ, but these repeat: {repeated}")
    return Description(
        name=name or type(model).__name__,
        parameters=parameters,
        responses=responses,
        bounds=checked_bounds(model.bounds, parameters),
        units={name: unit for name, unit in units_of(model).items() if name in names},  # all that datasets keep
        digest=(model.digest if isinstance(model, HasDigest) else "") or _source_digest(model, source),
    )


def checked_bounds(bounds: ArrayLike, parameters: tuple[str, ...]) -> Array:
    """Bounds as a float64 array (n, 2), each row finite and increasing; `ValueError` names the row that isn't."""
    if np.ma.is_masked(bounds) or np.iscomplexobj(bounds):
        raise ValueError("bounds are masked or complex; expected real numbers")
    box = np.array(bounds, dtype=np.float64)
    if box.shape != (len(parameters), 2):
        raise ValueError(f"bounds have shape {box.shape}, expected {(len(parameters), 2)} for {parameters}")
    sound = np.isfinite(box).all(axis=1) & (box[:, 0] < box[:, 1])
    if not sound.all():
        k = int(np.argmin(sound))
        low, high = box[k]
        raise ValueError(f"bounds of {parameters[k]!r} are [{low:g}, {high:g}]; expected finite, lower before upper")
    return box


def _source_digest(model: Model, made_by: Path | None) -> str:
    """Digest of the files that define and make the model; empty where there is none (an interactive session)."""
    try:
        defined_by = Path(inspect.getsourcefile(type(model)) or "")
    except TypeError:
        defined_by = Path()
    files = [path.resolve() for path in (defined_by, made_by or Path()) if path.is_file()]
    contents = [path.read_bytes() for path in dict.fromkeys(files)]
    return hashlib.sha256(b"".join(contents)).hexdigest()[:16] if contents else ""
