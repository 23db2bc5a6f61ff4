"""A quarter of a flat tensile specimen with a U-notch in both edges; lengths in mm.

The notch is a slot of parallel flanks with a semicircular root; the specimen is pulled along y. A band of cells along
the ligament, the straight line from root to root, has edges of its own, so that responses can be taken over it.

python -m sobofem.meshes.notched_specimen --size 1 --out meshes/notched_specimen.xdmf
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gmsh

from sobofem.meshes import FOLDER
from sobofem.meshes.tags import Specimen
from sobofem.meshes.writing import gmsh_model, write_model

HALF_WIDTH = 10.0  # mm
HALF_LENGTH = 15.0  # mm
CENTRE = 6.0  # mm, distance of the centre of the notch's root from the specimen's axis
RADIUS = 1.0  # mm, of the root
BAND = 0.5  # mm, half the height of the band along the ligament


def write_specimen(path: Path, *, size: float = 1.0) -> Path:
    """Write the quarter specimen with linear triangles, graded towards the notch root.

    Args:
        path: The `.xdmf` file to write.
        size: Edge length of cells far from the notch [mm]; at its root an eighth of it.

    Returns:
        The path written.
    """
    with gmsh_model("notched_specimen"):
        occ = gmsh.model.occ
        whole = occ.addRectangle(0, 0, 0, HALF_WIDTH, HALF_LENGTH)
        root = occ.addDisk(CENTRE, 0, 0, RADIUS, RADIUS)
        slot = occ.addRectangle(CENTRE, 0, 0, HALF_WIDTH - CENTRE, RADIUS)
        quarter, _ = occ.cut([(2, whole)], [(2, root), (2, slot)])
        along = occ.addLine(occ.addPoint(0, BAND, 0), occ.addPoint(CENTRE, BAND, 0))
        band, _ = occ.intersect([(1, along)], quarter, removeTool=False)
        occ.fragment(quarter, band)
        occ.synchronize()
        gmsh.model.addPhysicalGroup(2, [tag for _, tag in gmsh.model.getEntities(2)], 1)
        for tag, curves in _edges().items():
            gmsh.model.addPhysicalGroup(1, curves, tag)
        _grade(size / 8, size)
        return write_model(path, gdim=2, order=1)


def _edges() -> dict[Specimen, list[int]]:
    """The curves of each edge; those between the band and the rest belong to none."""
    edges: dict[Specimen, list[int]] = {}
    for _, curve in gmsh.model.getEntities(1):
        if len(gmsh.model.getAdjacencies(1, curve)[0]) == 1:
            edges.setdefault(_edge_tag(curve), []).append(curve)
    return edges


def _edge_tag(curve: int) -> Specimen:
    x, y, _ = gmsh.model.occ.getCenterOfMass(1, curve)
    near = 1e-6 * HALF_WIDTH
    for tag, hit in (
        (Specimen.LIGAMENT, y),
        (Specimen.AXIS, x),
        (Specimen.END, y - HALF_LENGTH),
        (Specimen.SIDE, x - HALF_WIDTH),
    ):
        if abs(hit) < near:
            return tag
    return Specimen.NOTCH


def _grade(fine: float, coarse: float) -> None:
    """Let the cell size grow linearly with the distance from the notch root."""
    field = gmsh.model.mesh.field
    slope = (coarse - fine) / HALF_WIDTH
    expression = field.add("MathEval")
    distance = f"sqrt((x - {CENTRE - RADIUS})^2 + y^2)"
    field.setString(expression, "F", f"min({coarse}, {fine} + {1.5 * slope} * {distance})")
    field.setAsBackgroundMesh(expression)
    for option in ("MeshSizeExtendFromBoundary", "MeshSizeFromPoints", "MeshSizeFromCurvature"):
        gmsh.option.setNumber(f"Mesh.{option}", 0)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=float, default=1.0, help="cell size far from the notch [mm]")
    parser.add_argument("--out", type=Path, default=FOLDER / "notched_specimen.xdmf", help="file to write")
    options = parser.parse_args()
    print(write_specimen(options.out, size=options.size))


if __name__ == "__main__":
    main()
