"""Datasets: samples of a model with their Jacobians, and everything that says where they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sobofem.coupling.contract import Array, Description
from sobofem.coupling.dataset import export, imported, own_arrays, sources, store, unfinished
from sobofem.coupling.dataset.mesh import OnMesh
from sobofem.coupling.dataset.records import LABELS, PRODUCTS, UNKNOWN_PIVOTS, Failure, product_shapes
from sobofem.coupling.dataset.rows import Rows, in_blocks, taken

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False)
class Dataset:
    """N samples of n parameters and m responses, sorted by design row. Physical units; the arrays are read-only.

    Attributes:
        x: Parameters, (N, n), inside the bounds.
        y: Responses, (N, m).
        jacobian: dy/dx, (N, m, n), or None in a values-only dataset.
        rows: The design row of each sample, (N,), increasing.
        seconds: Wall time of each evaluation [s], (N,).
        description: The model's names, bounds, units and digest.
        design: All planned points, (D, n), of which `rows` are computed.
        failures: Planned points that have no answer, with the reason.
        attempts: How often a process died while it computed a row, for rows without an answer where one did.
        provenance: Design kind and seed, model specification, versions.
        damage: What could not be read of an interrupted run; empty where all is whole.
        negative_pivots: Of the tangents behind each sample, (N,): 0 where all equilibria are minima of the energy, more
            where one is not, -1 where unknown.
        missing: Whether NaN in `y`, `jacobian` and `hessian_actions` stands for a label that isn't there; else NaN is
            refused.
        directions: A direction for each sample, (N, n), or None.
        hessian_actions: The Hessian of each response times the sample's direction, (N, m, n), or None.
        jvp_directions: Directions v of each sample, (N, k, n), or the same of all, (k, n); or None.
        jvp: J v for each of these, (N, k, m), or None.
        vjp_weights: Weights w of each sample's responses, (N, r, m), or the same of all, (r, m); or None.
        vjp: Jᵀ w for each of these, (N, r, n), or None.
        on_mesh: Where on a mesh parameters and responses are; None where they aren't.
    """

    x: Array
    y: Array
    jacobian: Array | None
    rows: NDArray[np.int64]
    seconds: Array
    description: Description
    design: Array
    failures: tuple[Failure, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    damage: tuple[str, ...] = ()
    attempts: Mapping[int, int] = field(default_factory=dict)
    negative_pivots: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    missing: bool = False
    directions: Array | None = None
    hessian_actions: Array | None = None
    jvp_directions: Array | None = None
    jvp: Array | None = None
    vjp_weights: Array | None = None
    vjp: Array | None = None
    on_mesh: OnMesh | None = None

    def __post_init__(self) -> None:
        n, m, N = len(self.parameters), len(self.responses), len(self.rows)
        _ = self.description.reach  # refuses bounds that are none
        if not len(self.negative_pivots):
            object.__setattr__(self, "negative_pivots", np.full(N, UNKNOWN_PIVOTS))
        shapes = {"x": (N, n), "y": (N, m), "jacobian": (N, m, n), "seconds": (N,), "design": (len(self.design), n)}
        shapes |= {"negative_pivots": (N,), "directions": (N, n), "hessian_actions": (N, m, n)}
        shapes |= product_shapes(self, N, n, m)
        for name, shape in shapes.items():
            values = getattr(self, name)
            if values is not None and values.shape != shape:
                raise ValueError(f"{name} has shape {values.shape}, expected {shape} for {N} rows")
        if (np.diff(self.rows) <= 0).any() or (N and not 0 <= self.rows[0] <= self.rows[-1] < len(self.design)):
            raise ValueError(f"rows must increase, and lie in the design of {len(self.design)} points")
        if (self.directions is None) != (self.hessian_actions is None):
            raise ValueError("directions and hessian_actions go together; one of them is None")
        if self.on_mesh is not None:
            self.on_mesh.check(n, m)
        for name in ("x", "directions", *LABELS, *PRODUCTS):
            self._check_finite(name)
        self._check_inside()
        for name in (*shapes, "rows"):
            values = getattr(self, name)
            if values is not None:
                object.__setattr__(self, name, _read_only(values))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """From a pickle, which forgets that arrays are read-only."""
        self.__dict__.update(state)
        self.__post_init__()

    @classmethod
    def open(cls, path: str | Path, *, in_memory: bool = True) -> Dataset:
        """Read a dataset, with the samples of an interrupted or running generation beside it.

        Args:
            path: The file.
            in_memory: Whether all of it is read; else what a dataset of fields holds of each sample stays in the file
                as `Rows`, of which `y[3:7]` are read when they are wanted.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is no dataset, a damaged one, or of a newer format.
        """
        path = Path(path)
        return unfinished.opened(path, lambda: cls(**store.read(path, in_memory=in_memory)), in_memory=in_memory)

    @classmethod
    def from_arrays(
        cls,
        x: ArrayLike,
        y: ArrayLike,
        jacobian: ArrayLike | None = None,
        *,
        description: Description,
        missing: bool = False,
    ) -> Dataset:
        """A dataset of arrays that came from elsewhere, checked; its rows are 0 to N - 1.

        Args:
            x: Parameters, (N, n); of a data frame columns are taken by name.
            y: Responses, (N, m); likewise.
            jacobian: dy/dx, (N, m, n), or None; columns of a data frame are named `d(y)/d(x)`.
            description: Names, bounds and units.
            missing: Whether NaN in `y` and `jacobian` stands for a label that isn't there.

        Raises:
            ValueError: If shapes disagree, numbers are not finite, or inputs leave the bounds, naming the row.
        """
        points, values, slopes = own_arrays.as_arrays(x, y, jacobian, description)
        return cls(
            x=points,
            y=values,
            jacobian=slopes,
            rows=np.arange(len(points)),
            seconds=np.zeros(len(points)),
            description=description,
            design=points,
            missing=missing,
        )

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        *,
        parameters: Sequence[str] = (),
        responses: Sequence[str] = (),
        derivatives: str = "",
        bounds: Mapping[str, tuple[float, float]] | None = None,
        margin: float = imported.MARGIN,
        keep_repeats: bool = False,
    ) -> Dataset:
        """A dataset of the columns of a table, NaN where an entry is missing.

        Args:
            frame: Anything with `columns` that hands out one by `[name]`, as frames of pandas and polars do.
            parameters: Columns of the parameters, or patterns such as `x*`; by default what derivatives are by.
            responses: Columns of the responses, likewise; if only one of the two is given, it is the other columns.
            derivatives: How derivatives are called, such as `grad_{response}_{parameter}`; by default `d(y)/d(x)`,
                `dy/dx`, `dy_dx` or `∂y/∂x`.
            bounds: Range by parameter; of the others it is that of the samples, and a margin.
            margin: Share of the samples' range by which their bounds are wider on either side.
            keep_repeats: Whether a point may occur several times with other responses, as measurements do.

        Raises:
            TypeError: If it is no such table.
            ValueError: If columns can't be told apart or hold no numbers; the message names them, and the way out.
        """
        wanted = imported.Wanted(
            parameters, responses, derivatives, {} if bounds is None else bounds, margin, keep_repeats
        )
        return cls(**imported.imported(sources.frame_columns(frame, "frame"), wanted).fields)

    @classmethod
    def from_file(
        cls,
        path: str | Path | Sequence[str | Path],
        *,
        parameters: Sequence[str] = (),
        responses: Sequence[str] = (),
        derivatives: str = "",
        bounds: Mapping[str, tuple[float, float]] | None = None,
        margin: float = imported.MARGIN,
        keep_repeats: bool = False,
    ) -> Dataset:
        """A dataset of another program's samples: of a CSV, Parquet or NumPy file, of several, or of a folder of them.

        Args:
            path: Of the file, files or folder.
            parameters: As of `from_frame`, and so are the others.
            responses: Likewise.
            derivatives: Likewise.
            bounds: Likewise.
            margin: Likewise.
            keep_repeats: Likewise.

        Raises:
            FileNotFoundError: If there is no such file.
            ModuleNotFoundError: If it is Parquet, and pyarrow is not installed.
            ValueError: As `from_frame`; the message names file and line, too.
        """
        wanted = imported.Wanted(
            parameters, responses, derivatives, {} if bounds is None else bounds, margin, keep_repeats
        )
        paths = [path] if isinstance(path, str | Path) else path
        return cls(**imported.imported(sources.read_columns([Path(each) for each in paths]), wanted).fields)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the n parameters."""
        return self.description.parameters

    @property
    def responses(self) -> tuple[str, ...]:
        """Names of the m responses."""
        return self.description.responses

    @property
    def bounds(self) -> Array:
        """Bounds of the parameters, (n, 2)."""
        return self.description.bounds

    @property
    def units(self) -> Mapping[str, str]:
        """Unit of each parameter and response that has one, by name."""
        return self.description.units

    @property
    def of_fields(self) -> bool:
        """Whether it holds a mesh, or products in place of Jacobians: what larger data has."""
        return any(each is not None for each in (self.on_mesh, self.jvp, self.vjp))

    def pivots_of(self, sample: int) -> int | None:
        """Negative pivots behind one of the N samples, None where unknown."""
        count = int(self.negative_pivots[sample])
        return None if count == UNKNOWN_PIVOTS else count

    def save(self, path: str | Path) -> None:
        """Write to an HDF5 file, replacing it as a whole: a reader sees the old dataset or the new one."""
        store.write(Path(path), self)

    def select(self, rows_or_mask: ArrayLike) -> Dataset:
        """The samples of some design rows, without failures.

        Args:
            rows_or_mask: Design rows (integers, each of a computed sample), or a mask over the samples, (N,).

        Raises:
            ValueError: If a row has no sample, or the mask another length.
        """
        chosen = np.asarray(rows_or_mask)
        if chosen.dtype == np.bool_:
            if chosen.shape != (len(self),):
                raise ValueError(f"the mask has shape {chosen.shape}, expected {(len(self),)}: one entry a sample")
            keep = chosen
        else:
            absent = np.setdiff1d(chosen, self.rows)
            if len(absent):
                raise ValueError(f"design rows {absent.tolist()} have no sample here")
            keep = np.isin(self.rows, chosen)
        arrays = {name: taken(values, keep) for name, values in self.of_samples().items()}
        return replace(self, **arrays, failures=(), attempts={})

    def of_samples(self) -> dict[str, Any]:
        """What there is of each sample, an array (N, ...) by the name of each."""
        names = ("rows", "x", "y", "jacobian", "directions", "hessian_actions", "seconds", "negative_pivots", *PRODUCTS)
        found = {name: values for name in names if (values := getattr(self, name)) is not None}
        return {name: values for name, values in found.items() if not (name in PRODUCTS and values.ndim == 2)}

    def in_memory(self) -> Dataset:
        """The same, with all in memory that is in a file; but of fields."""
        return self if self.of_fields else replace(self, design=np.asarray(self.design), **in_blocks(self.of_samples()))

    def head(self, k: int) -> Dataset:
        """The dataset of the first k design rows, as if no more had been planned; failed rows are not replaced."""
        if not 1 <= k <= len(self.design):
            raise ValueError(f"{k} rows were asked for; the design has {len(self.design)}")
        failures = tuple(failure for failure in self.failures if failure.row < k)
        return replace(self.select(self.rows < k), design=self.design[:k], failures=failures)

    def split(self, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
        """Two disjoint parts, drawn at random: for training, and a fraction of the samples for validation."""
        held_out = round(fraction * len(self))
        if not 0 < held_out < len(self):
            raise ValueError(f"a fraction of {fraction} of {len(self)} samples leaves one part empty")
        mask = np.zeros(len(self), dtype=np.bool_)
        mask[np.random.default_rng(seed).permutation(len(self))[:held_out]] = True
        return self.select(~mask), self.select(mask)

    def summary(self) -> str:
        """What the dataset holds, in lines of text."""
        return export.summary(self)

    def to_numpy(self, path: str | Path) -> None:
        """Write the arrays and names to a NumPy archive (`.npz`), readable by `numpy.load` alone."""
        export.to_numpy(self, Path(path))

    def to_pandas(self) -> pandas.DataFrame:
        """A table with a line per sample, indexed by design row; derivatives in columns named `d(y)/d(x)`."""
        return export.to_pandas(self)

    def _check_finite(self, name: str) -> None:
        values = getattr(self, name)
        gaps = self.missing and name in LABELS
        if values is None or isinstance(values, Rows):  # those were checked when they were computed
            return
        if (fine := ~np.isinf(values) if gaps else np.isfinite(values)).all():
            return
        if name in PRODUCTS and values.ndim == 2:
            raise ValueError(f"{name} holds NaN or infinity")
        bad = self.rows[~fine.reshape(len(values), -1).all(axis=1)]
        what = "infinity" if gaps else "NaN or infinity"
        raise ValueError(f"{name} holds {what} in rows {bad[:5].tolist()} ({len(bad)} of {len(self)})")

    def _check_inside(self) -> None:
        if isinstance(self.x, Rows):  # checked when they were computed
            return
        (low, high), reach = self.bounds.T, self.description.reach.T
        outside = (self.x < reach[0]) | (self.x > reach[1])
        if outside.any():
            sample, i = np.argwhere(outside)[0]
            raise ValueError(
                f"row {self.rows[sample]} has {self.parameters[i]} = {self.x[sample, i]:g}, "
                f"outside its bounds [{low[i]:g}, {high[i]:g}]"
            )


def _read_only[T: np.generic](array: NDArray[T]) -> NDArray[T]:
    """A view that can't be written to; the caller's own array stays as it is."""
    if isinstance(array, Rows):
        return array
    view = array.view()
    view.setflags(write=False)
    return view
