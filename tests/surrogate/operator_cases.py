"""Fields to learn: a clamped plate under nodal forces, assembled with NumPy; linear, so that its Jacobian is known."""

from dataclasses import dataclass

import numpy as np

from sobofem.surrogate.operators import Mesh, OperatorSamples


def rectangle(nx, ny, *, cell="triangle", keep=lambda middle: True):
    """A mesh of a rectangle of nx x ny squares of size one, cut into triangles or not; cells may be left out."""
    x, y = np.meshgrid(np.arange(nx + 1.0), np.arange(ny + 1.0), indexing="ij")
    numbers = np.arange(x.size).reshape(x.shape)
    quads = np.stack((numbers[:-1, :-1], numbers[1:, :-1], numbers[1:, 1:], numbers[:-1, 1:]), -1).reshape(-1, 4)
    points = np.stack((x.ravel(), y.ravel()), 1)
    quads = quads[[keep(points[corners].mean(axis=0)) for corners in quads]]
    used, renumbered = np.unique(quads, return_inverse=True)
    quads = renumbered.reshape(-1, 4)
    cells = quads if cell == "quad" else np.concatenate((quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]))
    return Mesh(points[used], cells, cell)


@dataclass
class Plate:
    """Linear elasticity in the plane, clamped at x = 0.

    Attributes:
        mesh: The mesh, of triangles.
        stiffness: Matrix (2 P, 2 P), without the support.
        flexibility: Displacements by forces (2 P, 2 P), zero at the support.
    """

    mesh: Mesh
    stiffness: np.ndarray
    flexibility: np.ndarray

    @classmethod
    def of(cls, nx=4, ny=2):
        mesh = rectangle(nx, ny)
        P = len(mesh)
        stiffness = np.zeros((2 * P, 2 * P))
        C = np.array([[1.0, 0.3, 0.0], [0.3, 1.0, 0.0], [0.0, 0.0, 0.35]]) / 0.91
        for cell in mesh.cells:
            corners = np.concatenate((np.ones((3, 1)), mesh.points[cell]), 1)
            slopes = np.linalg.inv(corners)[1:]  # (2, 3)
            B = np.zeros((3, 6))
            B[0, 0::2], B[1, 1::2] = slopes
            B[2, 0::2], B[2, 1::2] = slopes[1], slopes[0]
            dofs = np.stack((2 * cell, 2 * cell + 1), 1).ravel()
            stiffness[np.ix_(dofs, dofs)] += B.T @ C @ B * abs(np.linalg.det(corners)) / 2
        free = np.repeat(mesh.points[:, 0] > 0.0, 2)
        flexibility = np.zeros_like(stiffness)
        flexibility[np.ix_(free, free)] = np.linalg.inv(stiffness[np.ix_(free, free)])
        return cls(mesh, stiffness, flexibility)

    def samples(self, N, *, seed=0, products=0, bend=0.0):
        """N random loads, their displacements, and directions and weights of each; `bend` makes it nonlinear."""
        rng, P = np.random.default_rng(seed), len(self.mesh)
        forces = rng.standard_normal((N, 2 * P))
        linear = forces @ self.flexibility

        def shaped(values):
            return values.reshape(*values.shape[:-1], P, 2)

        displacements = linear + bend * linear**2
        more = {}
        if products:
            V, W = rng.standard_normal((2, N, products, 2 * P))
            slope = 1.0 + 2.0 * bend * linear[:, None]
            more = {
                "directions": shaped(V),
                "derivatives": shaped(slope * (V @ self.flexibility)),
                "weights": shaped(W),
                "gradients": shaped((W * slope) @ self.flexibility),
            }
        return OperatorSamples(
            self.mesh,
            shaped(forces),
            shaped(displacements),
            input_names=("force_x", "force_y"),
            output_names=("u_x", "u_y"),
            units={"force_x": "N", "force_y": "N", "u_x": "mm", "u_y": "mm"},
            **more,
        )
