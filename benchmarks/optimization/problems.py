"""What optimizers are compared on: a model and five related tasks each, all from the middle of the box."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.tasks import folder
from sobofem.coupling.contract import Array, Model
from sobofem.coupling.optimize import Task


@dataclass(frozen=True)
class Problem:
    """A model, and what is wanted of it.

    Attributes:
        name: In tables.
        kind: In words: the mechanics, what is free, what limits.
        model: Makes the model.
        tasks: Related ones, of which the first also stands alone.
    """

    name: str
    kind: str
    model: Callable[[], Model]
    tasks: tuple[Task, ...]

    def start(self, model: Model, task: Task) -> Array:
        """Where everybody begins (n,): the middle of the box, but for what is fixed."""
        middle = np.mean(model.bounds, axis=1)
        return np.array([task.fixed.get(name, value) for name, value in zip(model.parameters, middle, strict=True)])


def plate() -> Problem:
    """The lightest plate whose stress concentration stays below a limit: the hole's semi-axes."""
    loads = {"young": 70e3, "poisson": 0.33, "traction_x": 100.0, "traction_y": 60.0}
    limits = (1.95, 1.93, 1.94, 1.96, 1.98)
    tasks = tuple(Task("mass", {"stress_concentration": limit}, fixed=loads) for limit in limits)
    return Problem("plate", "linear; 2 of shape; a stress limit", _plate, tasks)


def panel() -> Problem:
    """The plate as a spring: much energy for its mass, as far as it may yield both ways and be stressed."""
    loads = {"traction_x": 110.0, "traction_y": 60.0}
    limits = ((0.150, 0.040), (0.145, 0.040), (0.155, 0.040), (0.150, 0.038), (0.155, 0.042))
    tasks = tuple(
        Task(
            {"mass": 1.0, "compliance": -2e-3},
            {"displacement_x": x, "displacement_y": y, "stress_concentration": 2.4},
            fixed=loads,
        )
        for x, y in limits
    )
    return Problem("panel", "linear; 2 of shape, 2 of material; 3 limits", _plate, tasks)


def cantilever() -> Problem:
    """The lightest cantilever under limits of both deflections and of stress, for five loads: its section."""
    forces = ((1000.0, 150.0), (900.0, 200.0), (1100.0, 100.0), (1200.0, 150.0), (800.0, 250.0))
    tasks = tuple(
        Task(
            "mass",
            {"deflection_y": 0.20, "deflection_z": 0.20, "upper_stress": 20.0},
            fixed={"young": 210e3, "poisson": 0.3, "force_y": y, "force_z": z},
        )
        for y, z in forces
    )
    return Problem("cantilever", "linear, 3D; 3 of shape; 3 limits", _cantilever, tasks)


def beam() -> Problem:
    """An actuator: loads, section and modulus that bring the tip of a soft beam to a place with the least energy."""
    places = ((-80.0, 20.0), (-85.0, 20.0), (-75.0, 20.0), (-80.0, 23.0), (-80.0, 17.0))
    tasks = tuple(
        Task("strain_energy", {"displacement_y": y}, {"displacement_z": z}, fixed={"poisson": 0.4}) for y, z in places
    )
    return Problem("beam", "hyperelastic, 3D; 2 of shape, 1 of material, 3 of load; 2 limits", _beam, tasks)


def block() -> Problem:
    """The modulus field that spares a rubber block most: stress, against what it deflects."""
    weights = (0.01, 0.005, 0.015, 0.02, 0.03)
    tasks = tuple(Task({"stress": 1.0, "displacement_y": weight}) for weight in weights)
    return Problem("block", "hyperelastic; 10 of a random field; bounds only", _block, tasks)


def notched() -> Problem:
    """The specimen that damages least, by strain and triaxiality, between two forces: its notch and its hardening."""
    fixed = {"young": 200e3, "poisson": 0.3, "end_displacement": 0.08}
    forces = ((5300.0, 5700.0), (5300.0, 5600.0), (5350.0, 5700.0), (5300.0, 5650.0), (5400.0, 5750.0))
    tasks = tuple(
        Task({"triaxiality": 1.0, "plastic_strain": 5.0}, {"first_force": most}, {"force": least}, fixed=fixed)
        for most, least in forces
    )
    return Problem("notched", "plastic; 1 of shape, 4 of hardening; 2 limits", _notched, tasks)


def sheet() -> Problem:
    """The stiffest sheet of a mass: 60 thicknesses, gradients by `vjp`."""
    masses = (270.0, 250.0, 260.0, 280.0, 290.0)
    tasks = tuple(Task("compliance", {"mass": mass}) for mass in masses)
    return Problem("sheet", "linear; 60 of a thickness field through vjp; a mass limit", _sheet, tasks)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    made.__name__: made for made in (plate, panel, cantilever, beam, block, notched, sheet)
}
"""By name; models are small on purpose, as only solves count."""


def _plate() -> Model:
    from mpi4py import MPI

    from sobofem.fem.library.plate_with_hole import plate_with_hole
    from sobofem.meshes.plate_with_hole import write_plate

    mesh = folder() / "coarse_plate.xdmf"
    if not mesh.exists():
        write_plate(mesh, size=12.0)
    return plate_with_hole(MPI.COMM_SELF, mesh=mesh)


def _cantilever() -> Model:
    from mpi4py import MPI

    from sobofem.fem.library.cantilever import cantilever

    return cantilever(MPI.COMM_SELF, cells=(8, 2, 1))


def _beam() -> Model:
    from mpi4py import MPI

    from sobofem.fem.library.large_beam import large_beam

    return large_beam(MPI.COMM_SELF, cells=(6, 1, 1))


def _block() -> Model:
    from mpi4py import MPI

    from sobofem.fem.library.random_block import random_block

    return random_block(MPI.COMM_SELF, cells=(6, 6))


def _notched() -> Model:
    from mpi4py import MPI

    from sobofem.fem.library.notched_specimen import notched_specimen
    from sobofem.meshes.notched_specimen import write_specimen

    mesh = folder() / "coarse_specimen.xdmf"
    if not mesh.exists():
        write_specimen(mesh, size=4.0)
    return notched_specimen(MPI.COMM_SELF, mesh=mesh, steps=2)


def _sheet() -> Model:
    from mpi4py import MPI

    from benchmarks.optimization.sheet import sheet

    return sheet(MPI.COMM_SELF)
