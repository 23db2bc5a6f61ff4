import numpy as np
import pytest
import toys

from sobofem.coupling import PointsFile, generate

NAMES = toys.smooth.parameters


def points_of(path):
    return PointsFile(path).points(toys.smooth.bounds, NAMES)


def test_columns_of_a_csv_file_may_stand_in_any_order(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("p, E ,t\n1.5,2e5,1.0\n\n-0.5,1.2e5,0.75\n", encoding="utf-8-sig")
    np.testing.assert_array_equal(points_of(path), [[2e5, 1.0, 1.5], [1.2e5, 0.75, -0.5]])


def test_points_from_numpy_make_a_dataset_that_grows_with_the_file(tmp_path):
    points = toys.smooth.bounds.mean(axis=1) + np.outer([0.0, 0.1, 0.2], [1e5, 1.0, 1.0])
    np.save(tmp_path / "points.npy", points[:2])
    old = generate(toys.smooth, PointsFile(tmp_path / "points.npy"), tmp_path / "a.h5")
    np.save(tmp_path / "points.npy", points)
    new = generate(toys.smooth, PointsFile(tmp_path / "points.npy"), tmp_path / "a.h5")
    np.testing.assert_array_equal(new.x, points)
    np.testing.assert_array_equal(new.y[:2], old.y)
    np.save(tmp_path / "points.npy", points[::-1])
    with pytest.raises(ValueError, match="other points in its design, first in row 0"):
        generate(toys.smooth, PointsFile(tmp_path / "points.npy"), tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("E,t\n1,2\n", "has the columns E, t; expected the inputs E, t, p"),
        ("", "is empty; expected a line that names the columns"),
        ("E,t,p\n", r"array \(0, 3\), expected \(N, 3\), N at least 1"),
        ("E,t,p\n2e5,1,1\n2e5,one,1\n", "line 3: 'one' is no number, as t must be"),
        ("E,t,p\n2e5,1\n", "line 2: 2 cells, expected 3"),
    ],
)
def test_a_wrong_csv_file_is_refused_with_the_place(tmp_path, text, message):
    path = tmp_path / "points.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        points_of(path)


def test_other_files_and_shapes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a file \.csv or \.npy"):
        points_of(tmp_path / "points.txt")
    np.save(tmp_path / "points.npy", np.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"array \(4, 2\), expected \(N, 3\)"):
        points_of(tmp_path / "points.npy")
    with pytest.raises(FileNotFoundError):
        points_of(tmp_path / "absent.csv")
