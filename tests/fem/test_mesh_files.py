"""Mesh files as others write them give the same mesh and tags; what can't be read says what to do."""

import builtins
import errno
import io

from mpi4py import MPI
import dolfinx
import h5py
import numpy as np
import pytest
import ufl

from sobofem import fem

POINTS = np.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [2.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
TRIANGLES = np.array([[0, 1, 2], [0, 2, 3]])
EDGES = np.array([[0, 1], [1, 2]])
TAGS = {"bottom": 3, "right": 4}


def item(values, path, form, name):
    """A DataItem as meshio writes it: numbers in the text, in HDF5 with compression, or in a binary file."""
    values = np.asarray(values)
    kind = "Int" if values.dtype.kind == "i" else "Float"
    size = " ".join(map(str, values.shape))
    head = f'<DataItem DataType="{kind}" Dimensions="{size}" Format="{form}" Precision="8">'
    text = " ".join(map(str, values.ravel().tolist()))
    if form == "HDF":
        with h5py.File(path.with_suffix(".h5"), "a") as file:
            file.create_dataset(name, data=values, compression="gzip")
        text = f"{path.stem}.h5:/{name}"
    if form == "Binary":
        values.tofile(path.parent / f"{path.stem}{name}.bin")
        text = f"{path.stem}{name}.bin"
    return f"{head}{text}</DataItem>"


def write(path, form, *, whole):
    """The rectangle as meshio writes it: triangles alone, or all cells with their physical groups."""
    stream = [number for cell in TRIANGLES.tolist() for number in (4, *cell)]
    stream += [number for edge in EDGES.tolist() for number in (2, 2, *edge)]
    kind = f'TopologyType="{"Mixed" if whole else "Triangle"}" NumberOfElements="{4 if whole else 2}"'
    nodes = item(np.array(stream) if whole else TRIANGLES, path, form, "data1")
    tags = item(np.array([7, 7, *TAGS.values()]) if whole else np.array([7, 7]), path, form, "data2")
    path.write_text(
        '<Xdmf Version="3.0"><Domain><Grid Name="Grid">'
        f'<Geometry GeometryType="XYZ">{item(POINTS, path, form, "data0")}</Geometry>'
        f"<Topology {kind}>{nodes}</Topology>"
        f'<Attribute Name="gmsh:physical" AttributeType="Scalar" Center="Cell">{tags}</Attribute>'
        "</Grid></Domain></Xdmf>"
    )
    return path


def lengths(mesh, tags):
    ds = ufl.ds(mesh, subdomain_data=tags)
    one = ufl.as_ufl(1.0)
    return [dolfinx.fem.assemble_scalar(dolfinx.fem.form(one * ds(tag))) for tag in TAGS.values()]


@pytest.mark.parametrize("form", ["XML", "HDF", "Binary"])
def test_meshes_of_meshio_are_read_however_it_stores_numbers(tmp_path, form):
    mesh, tags = fem.read_mesh(write(tmp_path / "whole.xdmf", form, whole=True), MPI.COMM_SELF)
    assert mesh.geometry.dim == 2 and mesh.topology.index_map(2).size_local == 2
    assert lengths(mesh, tags) == pytest.approx([2.0, 1.0])
    alone, none = fem.read_mesh(write(tmp_path / "alone.xdmf", form, whole=False), MPI.COMM_SELF)
    assert alone.topology.index_map(2).size_local == 2 and len(none.values) == 0
    _, of_another = fem.read_mesh(tmp_path / "alone.xdmf", MPI.COMM_SELF, facets=tmp_path / "whole.xdmf")
    assert sorted(of_another.values) == sorted(TAGS.values())


def test_a_mesh_of_dolfinx_without_facets_is_read(tmp_path):
    square = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2, dolfinx.mesh.CellType.quadrilateral)
    with dolfinx.io.XDMFFile(MPI.COMM_SELF, tmp_path / "m.xdmf", "w") as file:
        file.write_mesh(square)
    mesh, tags = fem.read_mesh(tmp_path / "m.xdmf", MPI.COMM_SELF)
    area = dolfinx.fem.assemble_scalar(dolfinx.fem.form(ufl.as_ufl(1.0) * ufl.dx(mesh)))
    assert area == pytest.approx(1.0) and len(tags.values) == 0


@pytest.mark.parametrize("order", [1, 2])
def test_a_mesh_of_gmsh_keeps_its_physical_groups(tmp_path, order):
    gmsh = pytest.importorskip("gmsh")
    gmsh.initialize()
    gmsh.option.setNumber("General.Terminal", 0)
    gmsh.model.occ.addRectangle(0, 0, 0, 2, 1)
    gmsh.model.occ.synchronize()
    gmsh.model.addPhysicalGroup(2, [1], 7)
    for line, tag in zip((1, 2), TAGS.values(), strict=True):
        gmsh.model.addPhysicalGroup(1, [line], tag)
    gmsh.model.mesh.generate(2)
    gmsh.model.mesh.setOrder(order)
    gmsh.write(str(tmp_path / "m.msh"))
    gmsh.finalize()
    mesh, tags = fem.read_mesh(tmp_path / "m.msh", MPI.COMM_SELF)
    assert mesh.geometry.cmaps[0].degree == order
    assert lengths(mesh, tags) == pytest.approx([2.0, 1.0])


def test_without_gmsh_the_way_to_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gmsh", None)
    (tmp_path / "m.msh").write_text("$MeshFormat\n")
    with pytest.raises(ValueError, match=r"needs gmsh.*pip install 'sobofem\[mesh\]'"):
        fem.read_mesh(tmp_path / "m.msh", MPI.COMM_SELF)


def test_what_is_no_mesh_says_what_to_do(tmp_path):
    for name, text, message in (
        ("m.vtu", "", r"no \.xdmf and no \.msh file; convert it"),
        ("m.xdmf", "<Xdmf><Domain>", "cut off"),
        ("r.xdmf", "<Xdmf><Domain/></Xdmf>", "no grid with points and cells"),
        ("g.msh", "hello", "gmsh can't read"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=message):
            fem.read_mesh(tmp_path / name, MPI.COMM_SELF)
    write(tmp_path / "lost.xdmf", "HDF", whole=False)
    (tmp_path / "lost.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"lost\.h5 does not exist, which lost\.xdmf names"):
        fem.read_mesh(tmp_path / "lost.xdmf", MPI.COMM_SELF)


@pytest.mark.parametrize("file", ["m.xdmf", "m.h5", "m.msh"])
def test_a_mesh_file_that_may_not_be_read_or_is_none_is_named(tmp_path, monkeypatch, file):
    write(tmp_path / "m.xdmf", "HDF", whole=False)
    (tmp_path / "m.msh").write_text("$MeshFormat\n")
    mesh = tmp_path / file.replace(".h5", ".xdmf")
    opened = io.open

    def refused(path, *how, **more):
        if str(path).endswith(file):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *how, **more)

    with monkeypatch.context() as denied:
        for module in (io, builtins):
            denied.setattr(module, "open", refused)
        with pytest.raises(ValueError, match=rf"mesh file \S*{file} can't be read: Permission denied; .*chmod"):
            fem.read_mesh(mesh, MPI.COMM_SELF)
    (tmp_path / file).write_bytes(b"hello")
    with pytest.raises(ValueError, match=rf"{file}.*; (write|save) the mesh once more"):
        fem.read_mesh(mesh, MPI.COMM_SELF)
    (tmp_path / file).unlink()
    (tmp_path / file).mkdir()
    with pytest.raises((ValueError, FileNotFoundError), match=rf"{file} (is a folder|does not exist)"):
        fem.read_mesh(mesh, MPI.COMM_SELF)


@pytest.mark.parametrize(
    ("changed", "to", "message"),
    [
        (" 0 2 3<", " 0 2 9<", "4 points, but its cells are made of points 0 to 9"),
        (">0 1 2", ">-1 1 2", "made of points -1 to 3"),
        (">0.0 0.0", ">nan 0.0", "not finite"),
    ],
)
def test_damaged_meshes_are_refused_in_words(tmp_path, changed, to, message):
    path = write(tmp_path / "damaged.xdmf", "XML", whole=False)
    assert changed in path.read_text()
    path.write_text(path.read_text().replace(changed, to))
    with pytest.raises(ValueError, match=message):
        fem.read_mesh(path, MPI.COMM_SELF)
