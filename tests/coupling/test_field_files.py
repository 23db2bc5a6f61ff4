"""Fields in VTK files and others: written, read back, and what is refused."""

import numpy as np
import pytest

from sobofem.coupling import Dataset
from sobofem.coupling.dataset.field_data import FieldData
from sobofem.coupling.dataset.mesh import Mesh
from sobofem.coupling.dataset.mesh_files import read_fields, write_fields

meshio = pytest.importorskip("meshio")

RNG = np.random.default_rng(0)
PLANE = Mesh(RNG.random((5, 2)), np.array([[0, 1, 2], [1, 2, 3], [2, 3, 4]]), "triangle")
SPACE = Mesh(RNG.random((8, 3)), np.arange(8)[None], "hexahedron")


def written(folder, mesh, count=4, ending=".vtu"):
    """Files of a load that is nowhere but at three nodes, a displacement and a temperature."""
    P, gdim = mesh.points.shape
    loads, moves, heat = (
        RNG.normal(size=(count, P, gdim)),
        RNG.normal(size=(count, P, gdim)),
        RNG.normal(size=(count, P)),
    )
    loads[:, 3:] = 0.0
    for k in range(count):
        fields = {"load": loads[k], "u": moves[k], "T": heat[k][:, None]}
        write_fields(folder / f"step_{k:03d}{ending}", mesh, fields)
    return loads, moves, heat


@pytest.mark.parametrize(("mesh", "ending"), [(PLANE, ".vtu"), (SPACE, ".vtu"), (PLANE, ".vtk"), (PLANE, ".xdmf")])
def test_fields_go_to_files_and_come_back(tmp_path, mesh, ending):
    loads, moves, heat = written(tmp_path, mesh, ending=ending)
    files = sorted(tmp_path.glob(f"*{ending}"))
    data = read_fields(files, inputs=["load"], outputs=["u", "T"], units={"u": "mm", "load": "N"})
    gdim = mesh.points.shape[1]
    assert data.x.shape == (4, 3 * gdim) and (data.bounds[:, 0] < data.x.min(axis=0)).all()
    data.save(tmp_path / "all.h5")
    found = FieldData.open(tmp_path / "all.h5")
    np.testing.assert_allclose(found.mesh.points, mesh.points, rtol=1e-7)
    np.testing.assert_array_equal(found.mesh.cells, mesh.cells)
    np.testing.assert_array_equal(found.inputs[:], loads)
    np.testing.assert_array_equal(found.outputs[:], np.concatenate([moves, heat[:, :, None]], axis=2))
    assert found.output_names == (*(f"u_{axis}" for axis in "xyz"[:gdim]), "T") and found.directions is None
    assert found.units == {"u_x": "mm", "u_y": "mm", "load_x": "N", "load_y": "N"} | (
        {"u_z": "mm", "load_z": "N"} if gdim == 3 else {}
    )
    assert Dataset.open(tmp_path / "all.h5").provenance["design"] == "imported"


def test_a_folder_is_read_in_the_order_of_names(tmp_path):
    _, moves, _ = written(tmp_path, PLANE)
    np.testing.assert_array_equal(read_fields(tmp_path, inputs=["load"], outputs=["u"]).y, moves.reshape(4, -1))


def test_inputs_of_several_fields_keep_their_units_and_third_components_that_are_zero_once(tmp_path):
    stress, heat = RNG.normal(size=(2, 5, 3)), RNG.normal(size=(2, 5))
    stress[0, :, 2] = 0.0
    for k in range(2):
        write_fields(tmp_path / f"{k}.vtu", PLANE, {"stress": stress[k], "T": heat[k]})
    data = read_fields(tmp_path, inputs=["stress", "T"], outputs=["T"], units={"stress": "MPa", "T": "K"})
    found = FieldData.of(data)
    np.testing.assert_array_equal(found.inputs, np.concatenate([stress, heat[:, :, None]], axis=2))
    assert found.units == {"stress_1": "MPa", "stress_2": "MPa", "stress_3": "MPa", "T": "K"}


def test_what_is_no_series_of_fields_is_refused_by_name(tmp_path):
    written(tmp_path, PLANE)
    with pytest.raises(ValueError, match=r"step_000\.vtu has no nodal field stress; it has load, u, T"):
        read_fields(tmp_path, inputs=["load"], outputs=["stress"])
    other = Mesh(PLANE.points + 0.1, PLANE.cells, "triangle")
    write_fields(tmp_path / "step_009.vtu", other, {"load": np.ones(5), "u": np.ones(5)})
    with pytest.raises(ValueError, match=r"step_009\.vtu has another mesh than .*step_000\.vtu"):
        read_fields(tmp_path, inputs=["load"], outputs=["u"])
    (tmp_path / "text.vtu").write_text("no mesh")
    with pytest.raises(ValueError, match=r"text\.vtu"):
        read_fields([tmp_path / "text.vtu"], inputs=["load"], outputs=["u"])
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_fields([tmp_path / "missing.vtu"], inputs=["load"], outputs=["u"])
    with pytest.raises(ValueError, match=r"shape \(4,\), expected \(5,\)"):
        write_fields(tmp_path / "a.vtu", PLANE, {"u": np.ones(4)})
    write_fields(tmp_path / "gap.vtu", PLANE, {"load": np.zeros(5), "u": np.full(5, np.nan)})
    with pytest.raises(ValueError, match=r"gap\.vtu has NaN or infinity in the nodal field u"):
        read_fields(tmp_path / "gap.vtu", inputs=["load"], outputs=["u"])
    with pytest.raises(ValueError, match="load are zero in all files"):
        read_fields(tmp_path / "gap.vtu", inputs=["load"], outputs=["load"])
    with pytest.raises(ValueError, match="name at least one field"):
        read_fields(tmp_path / "step_000.vtu", inputs=[], outputs=["u"])
