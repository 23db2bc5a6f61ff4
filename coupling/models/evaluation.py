"""Answers of models, checked: what a user's own model must return."""

from __future__ import annotations

from collections.abc import Sequence
import numbers
import sys
from typing import Any

import numpy as np

from sobofem.coupling.contract import Array, Curved, Gentle, Model, Products
from sobofem.coupling.dataset.own_arrays import in_order
from sobofem.coupling.parallel.usercode import UserCode


class NotFinite(ValueError):
    """An answer holds NaN or infinity."""


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
        ValueError: If an array has the wrong shape.
        NotFinite: If it holds NaN or infinity.
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
        y = real_numbers(answer[0], "responses", model.responses)
        dy = answer[1] if jacobian else None
        dy = None if dy is None else real_numbers(dy, "a Jacobian", model.responses, model.parameters)
    if y.shape != (m,):
        raise ValueError(f"evaluate returned responses of shape {y.shape}, expected {(m,)} for {model.responses}")
    if jacobian and (dy is None or dy.shape != (m, n)):
        shape = None if dy is None else dy.shape
        raise ValueError(f"evaluate returned a Jacobian of shape {shape}, expected {(m, n)}")
    if wrong := _not_finite(model, y, dy):
        point = dict(zip(model.parameters, np.asarray(x, dtype=np.float64).tolist(), strict=True))
        raise NotFinite(f"evaluate returned NaN or infinity at {point}: {wrong}")
    return y, dy


def checked_hessian_actions(model: Model, x: Array, v: Array) -> Array:
    """The Hessian of each response at x (n,) times v (n,), (m, n); errors as of `checked_hessian_product`."""
    return np.array([checked_hessian_product(model, x, weights, v) for weights in np.eye(len(model.responses))])


def checked_hessian_product(model: Model, x: Array, weights: Array, v: Array) -> Array:
    """The Hessian of the responses' sum with weights (m,) at x (n,), times v (n,): (n,).

    Raises:
        ValueError: If the model's product has another shape.
        NotFinite: If it holds NaN or infinity.
    """
    assert isinstance(model, Curved)
    with UserCode(type(model).__name__):
        product = real_numbers(model.hvp(x.copy(), weights.copy(), v[None].copy()), "a product with a Hessian")
    if product.shape != (1, len(v)):
        raise ValueError(f"hvp returned an array of shape {product.shape}, expected {(1, len(v))}")
    if not np.isfinite(product).all():
        names = [name for name, weight in zip(model.responses, weights, strict=True) if weight]
        raise NotFinite(f"hvp returned NaN or infinity for {', '.join(names)} at {x.tolist()}")
    found: Array = product[0]
    return found


def checked_products(model: Products, name: str, x: Array, vectors: Array, size: int) -> Array:
    """Products of the Jacobian at x (n,) with vectors (k, ...), (k, size).

    Args:
        model: Any that offers them.
        name: "jvp" or "vjp".
        x: Parameters.
        vectors: Directions (k, n), or weights (k, m).
        size: Numbers of a product.

    Raises:
        ValueError: If the model's products have another shape, or hold NaN or infinity.
    """
    with UserCode(type(model).__name__):
        found = real_numbers(getattr(model, name)(x.copy(), vectors.copy()), f"products by {name}")
    if found.shape != (len(vectors), size) or not np.isfinite(found).all():
        raise ValueError(f"{name} returned an array of shape {found.shape}, expected finite {(len(vectors), size)}")
    return found


def real_numbers(values: Any, what: str, *axes: Sequence[str]) -> Array:
    """What a user's code returned as a float64 array of its own: of real numbers, all of them there.

    Args:
        values: An array, nested lists, or a torch tensor, also one with a gradient; or what has labels.
        what: What that is, for the message.
        axes: The names that labels along each axis have.

    Raises:
        TypeError: If they are complex, text or other objects, or masked.
        ValueError: If labels are others than the names.
    """
    values = in_order(values, f"{what} returned by evaluate", *axes)
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
    for k in np.flatnonzero(~np.isfinite(y)):
        return f"{model.responses[k]} is {y[k]}"
    if dy is not None and not np.isfinite(dy).all():
        row, column = np.argwhere(~np.isfinite(dy))[0]
        return f"the derivative of {model.responses[row]} by {model.parameters[column]} is {dy[row, column]}"
    return ""
