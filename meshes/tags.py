"""Facet tags of the geometries, for those who write the meshes and those who read them."""

from enum import IntEnum


class Plate(IntEnum):
    """Edges of the quarter plate with a hole; LEFT and BOTTOM lie on the symmetry axes x = 0 and y = 0."""

    HOLE = 1
    LEFT = 2
    TOP = 3
    RIGHT = 4
    BOTTOM = 5


class Cantilever(IntEnum):
    """Faces of the cantilever: clamped, loaded, and the part of the upper face that the clamp does not disturb."""

    WALL = 1
    TIP = 2
    UPPER = 3


class Specimen(IntEnum):
    """Edges of the quarter specimen; LIGAMENT and AXIS lie on the symmetry axes y = 0 and x = 0, SIDE is free."""

    NOTCH = 1
    LIGAMENT = 2
    AXIS = 3
    END = 4
    SIDE = 5
