"""A quarter of a plate with a circular hole in the middle; lengths in mm.

python -m sobofem.meshes.plate_with_hole --size 5 --out meshes/plate_with_hole.xdmf
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import gmsh

from sobofem.meshes import FOLDER
from sobofem.meshes.tags import Plate
from sobofem.meshes.writing import gmsh_model, write_model


def write_plate(path: Path, *, half_width: float = 100.0, radius: float = 20.0, size: float = 5.0) -> Path:
    """Write the quarter plate with quadratic triangles, graded towards the hole.

    Args:
        path: The `.xdmf` file to write.
        half_width: Half the plate's side [mm].
        radius: Radius of the hole [mm].
        size: Edge length of cells far from the hole [mm]; at the hole a fifth of it, at most a twelfth of the arc.

    Returns:
        The path written.
    """
    with gmsh_model("plate_with_hole"):
        occ = gmsh.model.occ
        square = occ.addRectangle(0, 0, 0, half_width, half_width)
        disk = occ.addDisk(0, 0, 0, radius, radius)
        occ.cut([(2, square)], [(2, disk)])
        occ.synchronize()
        gmsh.model.addPhysicalGroup(2, [tag for _, tag in gmsh.model.getEntities(2)], 1)
        for _, curve in gmsh.model.getEntities(1):
            gmsh.model.addPhysicalGroup(1, [curve], _edge_tag(curve, half_width))
        _grade(min(size / 5, radius * math.pi / 24), size, radius, half_width)
        return write_model(path, gdim=2, order=2)


def _edge_tag(curve: int, half_width: float) -> Plate:
    x, y, _ = gmsh.model.occ.getCenterOfMass(1, curve)
    near = 1e-6 * half_width
    for tag, hit in (
        (Plate.LEFT, x),
        (Plate.BOTTOM, y),
        (Plate.RIGHT, x - half_width),
        (Plate.TOP, y - half_width),
    ):
        if abs(hit) < near:
            return tag
    return Plate.HOLE


def _grade(fine: float, coarse: float, radius: float, half_width: float) -> None:
    """Let the cell size grow linearly with the distance from the hole."""
    field = gmsh.model.mesh.field
    slope = (coarse - fine) / (half_width - radius)
    expression = field.add("MathEval")
    field.setString(expression, "F", f"min({coarse}, {fine} + {1.6 * slope} * (sqrt(x*x + y*y) - {radius}))")
    field.setAsBackgroundMesh(expression)
    for option in ("MeshSizeExtendFromBoundary", "MeshSizeFromPoints", "MeshSizeFromCurvature"):
        gmsh.option.setNumber(f"Mesh.{option}", 0)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=float, default=5.0, help="cell size far from the hole [mm]")
    parser.add_argument("--half-width", type=float, default=100.0, help="half the plate's side [mm]")
    parser.add_argument("--radius", type=float, default=20.0, help="radius of the hole [mm]")
    parser.add_argument("--out", type=Path, default=FOLDER / "plate_with_hole.xdmf", help="file to write")
    options = parser.parse_args()
    print(write_plate(options.out, half_width=options.half_width, radius=options.radius, size=options.size))


if __name__ == "__main__":
    main()
