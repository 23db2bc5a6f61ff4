"""The plate against Kirsch's and Inglis's closed forms for a hole in an infinite plate."""

from mpi4py import MPI
import numpy as np
import pytest

from sobofem.fem.library.plate_with_hole import EXPONENT, plate_with_hole
from sobofem.meshes.plate_with_hole import write_plate


def inglis_concentration(a, b, traction_x, traction_y):
    """The p-norm of the hoop stress at an elliptical hole over the undisturbed von Mises stress; a along x."""
    major, minor, along, across = (a, b, traction_x, traction_y) if a > b else (b, a, traction_y, traction_x)
    xi = np.arctanh(minor / major)
    eta = np.linspace(0.0, np.pi / 2, 4001)

    def hoop(angle):
        bend = np.exp(2 * xi) * np.cos(2 * (angle - eta))
        return (np.sinh(2 * xi) + np.cos(2 * angle) - bend) / (np.cosh(2 * xi) - np.cos(2 * eta))

    stress = np.abs(along * hoop(0.0) + across * hoop(np.pi / 2))
    length = np.hypot(major * np.sin(eta), minor * np.cos(eta))
    mean = np.trapezoid(stress**EXPONENT * length, eta) / np.trapezoid(length, eta)
    return mean ** (1 / EXPONENT) / np.sqrt(traction_x**2 - traction_x * traction_y + traction_y**2)


def evaluate_plate(folder, half_width, radii, tractions, *, size=5.0):
    path = write_plate(folder / f"plate_{half_width:g}.xdmf", half_width=half_width, radius=20.0, size=size)
    plate = plate_with_hole(MPI.COMM_SELF, mesh=path, half_width=half_width)
    (_, concentration, *_), _ = plate.evaluate([70e3, 0.3, *tractions, *radii], jacobian=False)
    return concentration


@pytest.mark.slow
def test_stress_concentration_tends_to_kirsch_as_the_plate_grows(tmp_path):
    tractions = (130.0, 40.0)
    exact = inglis_concentration(20.0 + 1e-6, 20.0, *tractions)
    errors = [abs(evaluate_plate(tmp_path, w, (20.0, 20.0), tractions) / exact - 1) for w in (200.0, 400.0)]
    assert errors[0] > 3 * errors[1]  # the disturbance falls with the square of radius / width
    assert errors[1] < 0.008


@pytest.mark.slow
@pytest.mark.parametrize("radii", [(26.0, 17.0), (15.0, 30.0)])
def test_moved_mesh_gives_inglis_stress_at_an_ellipse(tmp_path, radii):
    tractions = (90.0, 55.0)
    concentration = evaluate_plate(tmp_path, 400.0, radii, tractions)
    assert concentration == pytest.approx(inglis_concentration(*radii, *tractions), rel=0.01)


def test_mass_is_that_of_the_area_left_by_the_ellipse():
    plate = plate_with_hole(MPI.COMM_SELF)
    (*_, mass), jacobian = plate.evaluate([70e3, 0.3, 100.0, 50.0, 30.0, 16.0])
    assert mass == pytest.approx(2.7e-3 * 10.0 * (100.0**2 - np.pi * 30.0 * 16.0 / 4), rel=1e-5)
    assert jacobian[-1, 4:] == pytest.approx(-2.7e-3 * 10.0 * np.pi / 4 * np.array([16.0, 30.0]), rel=1e-4)


def test_compliance_is_the_work_of_the_tractions_on_the_mean_displacements():
    plate = plate_with_hole(MPI.COMM_SELF)
    (compliance, _, across, along, _), _ = plate.evaluate([65e3, 0.35, 110.0, 30.0, 18.0, 25.0])
    assert compliance == pytest.approx(10.0 * 100.0 * (110.0 * across + 30.0 * along), rel=1e-12)
