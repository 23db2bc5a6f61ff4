"""A closed-form map between fields on a small mesh, for the tests: by name on a command line or imported."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

POINTS = np.array([[x, y] for x in range(4) for y in range(3)], dtype=float)
CELLS = np.array([[3 * i + j, 3 * i + j + 3, 3 * i + j + 4, 3 * i + j + 1] for i in range(3) for j in range(2)])


@dataclass
class Plate:
    """Two outputs a node of one input each at eight of twelve: y = A x + (B x)², components of a node together."""

    nodes: int = 8
    digest = "plate-1"

    def __post_init__(self):
        rng = np.random.default_rng(1)
        self.A, self.B = rng.normal(size=(2, 24, self.nodes))
        self.parameters = tuple(f"load_{k}" for k in range(1, self.nodes + 1))
        self.responses = tuple(f"u_{k}" for k in range(1, 25))
        self.bounds = np.tile([-2.0, 2.0], (self.nodes, 1))
        self.units = dict.fromkeys(self.parameters, "N") | dict.fromkeys(self.responses, "mm")
        mesh = SimpleNamespace(points=POINTS, cells=CELLS, cell="quad")
        inputs = np.arange(12)[-self.nodes :]
        self.on_mesh = SimpleNamespace(
            mesh=mesh, inputs=inputs, input_names=("load",), output_names=("u_x", "u_y"), geometry={"width": 3.0}
        )

    def evaluate(self, x, *, jacobian=True):
        x = np.asarray(x)
        return self.A @ x + (self.B @ x) ** 2, self.matrix(x) if jacobian else None

    def matrix(self, x):
        return self.A + 2 * (self.B @ x)[:, None] * self.B

    def jvp(self, x, directions):
        return directions @ self.matrix(x).T

    def vjp(self, x, weights):
        return weights @ self.matrix(x)

    def sample(self, count, seed):
        """A load at one place each, in turn."""
        rng = np.random.default_rng(seed)
        found = np.zeros((count, self.nodes))
        for k, row in enumerate(found):
            row[k % self.nodes] = rng.uniform(-2.0, 2.0)
        return found


@dataclass
class Fragile(Plate):
    """One that holds no large load at its first node."""

    digest = "fragile-plate-1"

    def evaluate(self, x, *, jacobian=True):
        if x[0] > 1.2:
            raise ArithmeticError("it buckles")
        return super().evaluate(x, jacobian=jacobian)


plate, fragile = Plate(), Fragile()
