"""A tensile specimen with U-notches in both edges, elastic-plastic, in plane strain: a quarter of it.

It is pulled beyond yield, partly unloaded and pulled further. Lengths in mm, stresses in MPa; forces in N and work in
mJ are those of the whole specimen, per mm of its thickness.
"""

from __future__ import annotations

from pathlib import Path

from mpi4py import MPI
import dolfinx
import numpy as np
import ufl

from sobofem.fem.load_path import LoadPath
from sobofem.fem.materials import plasticity
from sobofem.fem.materials.elasticity import von_mises
from sobofem.fem.parameters import Scalar, Shape
from sobofem.fem.problem import Problem
from sobofem.fem.reading import read_mesh
from sobofem.fem.responses import Response, average, p_norm
from sobofem.fem.solving.newton import Newton
from sobofem.meshes import FOLDER
from sobofem.meshes.tags import Specimen

REVERSALS = (0.6, 0.3, 1.0)  # parts of the prescribed displacement between which the load path runs
EXPONENT = 8.0  # of the p-norm that stands for the largest plastic strain
CENTRE, RADIUS, BAND = 6.0, 1.0, 0.5  # mm, of the slot's end, and half the height of the band; as in the mesh
REACH = 5.5  # mm from the slot's middle, beyond which a change of its radius moves nothing


def notched_specimen(
    comm: MPI.Intracomm = MPI.COMM_WORLD,
    *,
    mesh: str | Path = FOLDER / "notched_specimen.xdmf",
    steps: int = 6,
    curve: bool = False,
) -> Problem:
    """The specimen as a `Problem`.

    The material is J2 plasticity with Voce's isotropic and linear kinematic hardening: the yield stress grows from
    `yield_stress` by up to `saturation`, at `rate`, and the backstress with the modulus `kinematic`.

    Parameters: `young` [MPa], `poisson` [-], `yield_stress` [MPa], `saturation` [MPa], `rate` [-], `kinematic` [MPa],
    `end_displacement` [mm] at the end of the load path, and `notch_radius` [mm]; a larger one shortens the ligament.

    Responses: `force` [N/mm] at the end of the load path and `first_force` [N/mm] at its first reversal;
    `triaxiality` [-], mean over a band along the ligament of mean stress over von Mises stress; `plastic_work`
    [mJ/mm]; `plastic_strain` [-], a p-norm of the equivalent plastic strain over that band.

    Args:
        comm: Communicator to distribute the mesh over.
        mesh: A file that `sobofem.meshes.notched_specimen` wrote.
        steps: Load steps from one reversal of the load to the next.
        curve: Whether the responses are the forces at all points of the load path instead, `force_1`, `force_2`, ...:
            a force-displacement curve with its derivatives.
    """
    domain, facets = read_mesh(mesh, comm)
    space = dolfinx.fem.functionspace(domain, ("Lagrange", 2, (2,)))
    u, v = dolfinx.fem.Function(space, name="displacement"), ufl.TestFunction(space)
    young, poisson, yield_stress, saturation, rate, kinematic, end_displacement = (
        dolfinx.fem.Constant(domain, value) for value in (200e3, 0.3, 300.0, 150.0, 30.0, 3000.0, 0.08)
    )
    before = plasticity.memory(domain, quadrature_degree=2)
    after = plasticity.return_mapping(
        plasticity.strain(u),
        before,
        young=young,
        poisson=poisson,
        hardening=plasticity.voce_hardening(yield_stress, saturation, rate),
        kinematic=kinematic,
    )
    dx = ufl.dx(domain, metadata={"quadrature_degree": 2})
    band = dx(1, subdomain_data=_band(domain))
    end = dolfinx.fem.dirichletbc(end_displacement, _dofs(space, 1, facets.find(Specimen.END)), space.sub(1))
    extension = dolfinx.fem.Function(space)
    extension.x.array[end.dof_indices()[0]] = 1.0
    force = 2.0 * ufl.inner(after.stress, plasticity.strain(extension)) * dx
    size = von_mises(after.stress)
    triaxiality = ufl.tr(after.stress) / 3 / size
    path = LoadPath.cyclic(REVERSALS, steps)
    responses = [
        Response("force", force, unit="N/mm"),
        Response("first_force", force, unit="N/mm", at=steps - 1),
        average("triaxiality", triaxiality, band),
        Response("plastic_work", 4.0 * after.work * dx, unit="mJ/mm", at="sum"),
        p_norm("plastic_strain", after.accumulated, band, p=EXPONENT),
    ]
    if curve:
        responses = [Response(f"force_{k + 1}", force, unit="N/mm", at=k) for k in range(len(path.points))]

    return Problem(
        ufl.inner(after.stress, plasticity.strain(v)) * dx,
        u,
        bcs=[
            end,
            dolfinx.fem.dirichletbc(0.0, _dofs(space, 0, facets.find(Specimen.AXIS)), space.sub(0)),
            dolfinx.fem.dirichletbc(0.0, _dofs(space, 1, facets.find(Specimen.LIGAMENT)), space.sub(1)),
        ],
        parameters=[
            Scalar("young", young, (180e3, 220e3), unit="MPa"),
            Scalar("poisson", poisson, (0.25, 0.35)),
            Scalar("yield_stress", yield_stress, (250.0, 350.0), unit="MPa"),
            Scalar("saturation", saturation, (100.0, 200.0), unit="MPa"),
            Scalar("rate", rate, (20.0, 40.0)),
            Scalar("kinematic", kinematic, (1000.0, 5000.0), unit="MPa"),
            Scalar("end_displacement", end_displacement, (0.06, 0.10), unit="mm"),
            Shape("notch_radius", _widening, (0.7, 1.4), reference=RADIUS, unit="mm"),
        ],
        responses=responses,
        fields={"von_mises": size, "equivalent_plastic_strain": after.accumulated, "triaxiality": triaxiality},
        path=path,
        history=plasticity.history(before, after),
        local=[before.multiplier],
        newton=Newton(rtol=1e-12, growth=1.0),
    )


def _dofs(space: dolfinx.fem.FunctionSpace, component: int, facets: np.ndarray) -> np.ndarray:
    return np.asarray(dolfinx.fem.locate_dofs_topological(space.sub(component), 1, facets))


def _band(domain: dolfinx.mesh.Mesh) -> dolfinx.mesh.MeshTags:
    """Cells of the band along the ligament, as 1."""
    cells = dolfinx.mesh.locate_entities(domain, 2, lambda x: x[1] < (1 + 1e-6) * BAND)
    return dolfinx.mesh.meshtags(domain, 2, cells, np.ones(len(cells), dtype=np.int32))


def _widening(x: np.ndarray) -> np.ndarray:
    """Velocity that widens the slot all round, fading away from it; straight edges slide along themselves or rest."""
    from_slot = np.stack([np.minimum(x[0] - CENTRE, 0.0), x[1]])
    distance = np.hypot(*from_slot)
    return from_slot / distance * np.maximum(REACH - distance, 0.0) / (REACH - RADIUS)
