"""Any model at many points."""

from __future__ import annotations

import numpy as np

from coupling.contract import Array, Model, checked_evaluation


def predictions(model: Model, x: Array, *, jacobian: bool = True) -> tuple[Array, Array | None]:
    """Responses (N, m) and, unless declined, Jacobians (N, m, n) at points (N, n), all at once where the model can."""
    predict = getattr(model, "predict", None)
    if predict is not None:
        y, dy = predict(x, jacobian=jacobian)
        return y, dy
    shape = (len(x), len(model.responses), len(model.parameters))
    answers = [checked_evaluation(model, point, jacobian=jacobian) for point in x]
    y = np.array([values for values, _ in answers]).reshape(shape[:2])
    return y, np.array([slopes for _, slopes in answers]).reshape(shape) if jacobian else None
