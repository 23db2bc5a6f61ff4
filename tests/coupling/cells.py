"""A cell whose law is known: homogeneous neo-Hooke in plane strain, by upper triangular displacement gradients."""

import numpy as np

LAMBDA = 2.0


def derivatives(x):
    """Energy, gradient and Hessian by stretches less one along and across, shear, and shear modulus m."""
    (a, b), shear, m = np.asarray(x[:2], dtype=float) + 1, x[2], x[3]
    log = np.log(a * b)
    w = 0.5 * (a**2 + b**2 + shear**2 - 2) - log + 0.5 * LAMBDA * log**2
    g = np.array([a + (LAMBDA * log - 1) / a, b + (LAMBDA * log - 1) / b, shear])
    aa, bb = (1 + (1 + LAMBDA * (1 - log)) / c**2 for c in (a, b))
    ab = LAMBDA / (a * b)
    H = np.array([[aa, ab, 0.0], [ab, bb, 0.0], [0.0, 0.0, 1.0]])
    return m * w, np.append(m * g, w), np.block([[m * H, g[:, None]], [g, np.zeros((1, 1))]])


class NeoHookeCell:
    """As `composite_cell`: its energy, and mean stresses, which are derivatives of it."""

    parameters = ("stretch_x", "stretch_y", "shear", "modulus")
    responses = ("energy", "stress_xx", "stress_yy", "stress_xy")
    digest = "neo-Hooke's cell"

    def __init__(self):
        self.solves = 0

    @property
    def bounds(self):
        return np.array([(-0.3, 0.6), (-0.3, 0.6), (-0.6, 0.6), (0.5, 2.0)])

    def evaluate(self, x, *, jacobian=True):
        self.solves += 1
        value, slope, hessian = derivatives(x)
        return np.append(value, slope[:3]), np.vstack([slope, hessian[:3]]) if jacobian else None

    def hvp(self, x, weights, directions):
        assert np.array_equal(weights, [1.0, 0.0, 0.0, 0.0])
        return np.asarray(directions) @ derivatives(x)[2]


def neo_hooke_cell():
    return NeoHookeCell()
