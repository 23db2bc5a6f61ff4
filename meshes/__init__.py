"""Parametric geometries, one a file, and the tagged meshes that they write.

The `.xdmf` and `.h5` files are what the library reads; gmsh is needed only to write them anew:

    python -m sobofem.meshes.plate_with_hole --size 5 --out meshes/plate_with_hole.xdmf
"""

from pathlib import Path

FOLDER = Path(__file__).parent
"""Where the committed mesh files are."""
