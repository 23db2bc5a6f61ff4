"""Samples of maps between fields on one mesh: what networks on meshes learn from. Neither FEniCSx nor MPI is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sobofem.coupling.dataset.dataset import Dataset
from sobofem.coupling.dataset.mesh import Mesh
from sobofem.coupling.dataset.rows import Rows, taken

ARRAYS = ("inputs", "outputs", "directions", "derivatives", "weights", "gradients")
"""What there is of each sample."""


@dataclass(frozen=True, eq=False)
class FieldData:
    """N samples of a map between nodal fields on a mesh of P nodes, with products of its Jacobian J.

    Arrays are NumPy's, or read from a file a few rows at a time where they are `Rows`: `data.outputs[3:7]` either way.

    Attributes:
        mesh: The mesh: `points` (P, gdim), `cells` (C, corners) and `cell`, the kind of cell as meshio calls it.
        inputs: Input fields (N, P, c_in).
        outputs: Output fields (N, P, c_out).
        directions: Directions v in the space of inputs (N, k, P, c_in), or None.
        derivatives: J v (N, k, P, c_out) for each of these, or None.
        weights: Weights w of the outputs (N, r, P, c_out), or None.
        gradients: Jᵀ w (N, r, P, c_in) for each of these, or None; zero at nodes whose inputs are no parameters.
        input_names: Of the c_in components.
        output_names: Of the c_out components.
        units: By these names, where there is one.
        provenance: Where the samples are from.
    """

    mesh: Mesh
    inputs: Any
    outputs: Any
    directions: Any = None
    derivatives: Any = None
    weights: Any = None
    gradients: Any = None
    input_names: tuple[str, ...] = ("input",)
    output_names: tuple[str, ...] = ("output",)
    units: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        N, P, c, d = len(self.inputs), len(self.mesh.points), len(self.input_names), len(self.output_names)
        shapes: dict[str, tuple[int, ...]] = {"inputs": (N, P, c), "outputs": (N, P, d)}
        for one, other, inner, outer in (("directions", "derivatives", c, d), ("weights", "gradients", d, c)):
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                raise ValueError(f"{one} and {other} go together; one of them is None")
            if (values := getattr(self, one)) is not None:
                count = values.shape[1] if values.ndim > 1 else 0
                shapes |= {one: (N, count, P, inner), other: (N, count, P, outer)}
        for name, shape in shapes.items():
            if np.ma.is_masked(getattr(self, name)):
                raise ValueError(f"{name} have masked entries; select the samples that are whole")
            if tuple(getattr(self, name).shape) != shape:
                raise ValueError(f"{name} have shape {tuple(getattr(self, name).shape)}, expected {shape}")

    def __len__(self) -> int:
        return len(self.inputs)

    @classmethod
    def open(cls, path: str | Path) -> FieldData:
        """Read a dataset that `generate` made of a model of fields; its fields stay in the file until they are wanted.

        Samples of a generation that is under way, or was interrupted, are among them.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is no dataset, a damaged one, or not one of fields on a mesh.
        """
        try:
            return cls.of(Dataset.open(path, in_memory=False))
        except _NoMesh as error:
            raise ValueError(f"{path} {error}") from None

    @classmethod
    def of(cls, data: Dataset) -> FieldData:
        """The fields of a dataset.

        Raises:
            ValueError: If it is not one of fields on a mesh.
        """
        on = data.on_mesh
        if on is None:
            raise _NoMesh("holds no mesh, so its responses are no fields on one; generate it from a model of fields")
        c, d, N = len(on.input_names), len(on.output_names), len(data)
        components = {on.input_names[on.inputs[k] % c]: data.parameters[k] for k in range(len(on.inputs))}
        components |= dict(zip(on.output_names, data.responses[:d], strict=True))
        return cls(
            on.mesh,
            _fields(data.x, on.input_field, N),
            _fields(data.y, on.output_field, N),
            _fields(data.jvp_directions, on.input_field, N, shared=_is_shared(data.jvp_directions)),
            _fields(data.jvp, on.output_field, N),
            _fields(data.vjp_weights, on.output_field, N, shared=_is_shared(data.vjp_weights)),
            _fields(data.vjp, on.input_field, N),
            input_names=on.input_names,
            output_names=on.output_names,
            units={name: data.units[of] for name, of in components.items() if of in data.units},
            provenance={**data.provenance, "digest": data.description.digest},
        )

    def select(self, chosen: ArrayLike) -> FieldData:
        """The samples of some numbers, or of a mask (N,); what lies in a file stays there."""
        found = {name: values for name in ARRAYS if (values := getattr(self, name)) is not None}
        return replace(self, **{name: taken(values, chosen) for name, values in found.items()})


class _NoMesh(ValueError):
    """A dataset is not of fields on a mesh."""


def _fields(values: Any, to_field: Callable[[np.ndarray], np.ndarray], N: int, *, shared: bool = False) -> Any:
    """Rows of N samples, or what is the same for all of them, as fields; in the file where they are."""
    if values is None:
        return None
    if isinstance(values, Rows):
        return values.changed(to_field, to_field(np.zeros(values.shape[1:])).shape)
    found = to_field(values)
    return np.broadcast_to(found, (N, *found.shape)) if shared else found


def _is_shared(values: Any) -> bool:
    """Whether all samples have the same directions or weights."""
    return values is not None and values.ndim == 2
