"""What a problem is differentiated with, for what is differentiated beside its responses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
import ufl

from sobofem.fem.derivatives.sensitivity import Sensitivity
from sobofem.fem.parameters import Binding
from sobofem.fem.solving.equilibrium import Equilibrium


class Parts(NamedTuple):
    """What a problem is differentiated with, for what is differentiated beside its responses: `sobofem.fem.fields`.

    Attributes:
        solve: Brings the problem to equilibrium at x (n,), unless it is there. Collective.
        equilibrium: Solves with the tangent there.
        sensitivity: Derivatives of the residual.
        bindings: The parameters.
        coordinates: Of the mesh before any shape changes.
        check_field: Refuses a field, as an expanded form with its name, of what the problem does not evaluate.
    """

    solve: Callable[[ArrayLike], None]
    equilibrium: Equilibrium
    sensitivity: Sensitivity
    bindings: Sequence[Binding]
    coordinates: np.ndarray
    check_field: Callable[[ufl.Form, str], None]
