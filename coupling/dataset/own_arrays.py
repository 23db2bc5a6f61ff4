"""Arrays as people have them: with names, masks, of any library; in the order of the names, and of real numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import contextlib
from typing import Any

import numpy as np

from sobofem.coupling.contract import Array, Description


def in_order(values: Any, what: str, *axes: Sequence[str]) -> Any:
    """Values put into the order of the names along each axis that has labels, as mappings, series and frames have.

    Args:
        values: Anything; what has no labels stays as it is.
        what: What it is, for the message.
        axes: The names along each of its axes.

    Raises:
        ValueError: If labels are others than the names.
    """
    if not axes:
        return values
    if hasattr(values, "_asdict") and set(values._fields) == set(axes[0]):  # a named tuple
        values = values._asdict()
    if isinstance(values, Mapping):
        wanted = list(axes[0])
        _check(list(values), wanted, what)
        values = [values[name] for name in wanted]
    elif not isinstance(values, list | tuple):
        return _labelled_in_order(values, what, axes)
    if len(axes) > 1 and any(map(has_labels, values)):
        return [in_order(entry, what, *axes[1:]) for entry in values]
    return values


def has_labels(values: Any) -> bool:
    """Whether it may have names: a mapping, series, frame, labelled array or named tuple."""
    if isinstance(values, Mapping) or hasattr(values, "_asdict") or hasattr(values, "coords"):
        return True
    found = (getattr(values, name, None) for name in ("index", "columns"))
    return any(labels is not None and not callable(labels) for labels in found)


def _labelled_in_order(values: Any, what: str, axes: Sequence[Sequence[str]]) -> Any:
    """Frames, series and labelled arrays in the order of the names."""
    dims, coords = getattr(values, "dims", ()), getattr(values, "coords", {})
    for k, (attribute, names) in enumerate(zip(("index", "columns"), axes, strict=False)):
        dim = dims[k] if k < len(dims) else None  # of xarray's
        labels = coords[dim].values.tolist() if dim in coords else getattr(values, attribute, None)
        if labels is None or callable(labels) or not all(isinstance(label, str) for label in labels):
            continue
        found, wanted = list(labels), list(names)
        if found == wanted:
            continue
        _check(found, wanted, what)
        if dim in coords:
            values = values.sel({dim: wanted})
        else:
            values = values.loc[wanted] if attribute == "index" else values[wanted]
    return values


def _check(found: list[Any], wanted: list[str], what: str) -> None:
    """Check that labels are the names, in any order; `ValueError` says both."""
    if set(found) != set(wanted) or len(set(found)) < len(found):
        raise ValueError(f"{what}: entries are named {', '.join(map(str, found))}; expected {', '.join(wanted)}")


def as_numbers(values: Any, what: str, *axes: Sequence[str]) -> Array:
    """Real numbers as an array of its own, NaN where one is masked or missing; labels as `in_order` takes them.

    Raises:
        TypeError: If it holds complex numbers, text, dates or other objects.
        ValueError: If labels are others than the names, or rows are of unequal lengths.
    """
    values = in_order(values, what, *axes)
    if not isinstance(values, np.ma.MaskedArray):
        with contextlib.suppress(RuntimeError, TypeError, ValueError):  # which is said below
            array = np.asarray(values)
            if array.dtype.kind in "biuf":
                return np.array(array, dtype=np.float64)
    from sobofem.surrogate.samples import arrays  # for which torch must be there

    return np.array(arrays.numbers(values, what))


def as_arrays(x: Any, y: Any, jacobian: Any, description: Description) -> tuple[Array, Array, Array | None]:
    """Arrays of their own; frames, tensors and the like as training takes them, for which torch must be there."""
    if all(labels is None or _is_plain(labels) for labels in (x, y, jacobian)):
        kept = [np.asarray(labels) for labels in (x, y, () if jacobian is None else jacobian)]
        if all(labels.dtype.kind in "biuf" for labels in kept):
            points, values, slopes = (np.array(labels, dtype=np.float64) for labels in kept)
            return points, values, None if jacobian is None else slopes
    from sobofem.surrogate.samples import arrays, labelled

    parameters, responses = description.parameters, description.responses
    labelled.check_rows(x=x, y=y, jacobian=jacobian)
    return (
        np.array(arrays.table(x, parameters, "x")),
        np.array(arrays.table(y, responses, "y")),
        None if jacobian is None else np.array(arrays.jacobians(jacobian, responses, parameters, "jacobian")),
    )


def _is_plain(values: Any) -> bool:
    """Whether it is an array, or a list of what has no names."""
    return type(values) is np.ndarray or (type(values) in (list, tuple) and not any(map(has_labels, values)))
