"""Tables as people's programs write them: read where that can be done in one way only, else refused."""

import numpy as np
import pytest

from sobofem.coupling.calibration import Measurements
from sobofem.coupling.dataset.tables import read_table
from sobofem.coupling.design.points import PointsFile

PLAIN = "response,value,sd\nE,2.5,0.1\nt,-1e3,2\n"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252"]
)
def test_a_table_is_the_same_in_every_encoding_and_with_every_line_end(tmp_path, encoding, end):
    path = tmp_path / "m.csv"
    path.write_bytes(PLAIN.replace("E", "Dähnung").replace("\n", end).encode(encoding))
    read = Measurements.read(path)
    assert read.responses == ("Dähnung", "t")
    assert read.values.tolist() == [2.5, -1000.0] and read.deviations.tolist() == [0.1, 2.0]


@pytest.mark.parametrize(
    "text",
    [
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", "|"),
        PLAIN.replace(",", ";").replace(".", ","),
        PLAIN.replace(",", "\t").replace(".", ","),
        "sep=;\n" + PLAIN.replace(",", ";").replace(".", ","),
        "# measured on Monday, by hand\n" + PLAIN,
        PLAIN.replace("\n", ",,\n") + ",,,,\n\n",
        '"response", "value", "sd"\n\n"E", "2.5" , 0.1\n t ,-1E+3,2.',
        PLAIN.replace("response", "Response").replace("sd", "SD"),
        PLAIN.replace("-1e3", "\u22121e3"),
        "\ufeff\ufeff" + PLAIN.replace("E", "\ufeffE"),
    ],
    ids=[
        "semicolons",
        "tabs",
        "bars",
        "decimal commas",
        "tabs and decimal commas",
        "separator declared",
        "remark",
        "empty columns",
        "quotes",
        "capitals",
        "typeset minus",
        "marks of files put together",
    ],
)
def test_separators_decimal_commas_and_remarks_change_no_number(tmp_path, text):
    path = tmp_path / "m.csv"
    path.write_text(text, encoding="utf-8")
    read = Measurements.read(path)
    assert read.responses == ("E", "t")
    assert read.values.tolist() == [2.5, -1000.0] and read.deviations.tolist() == [0.1, 2.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; expected a line that names the columns"),
        (b"\xef\xbb\xbf\r\n\r\n", "is empty"),
        (b"PK\x03\x04\x14\x00\x06\x00", "a workbook or another zip archive, no text; save it as CSV"),
        (b"\x1f\x8b\x08\x00", "is compressed, no text"),
        (bytes(range(256)), "is no text; save it as CSV"),
        (b"\xff\xfeE\x00,", "is damaged, or no UTF-16 text"),
        (b"E,t\n1,2\n1,5,2\n", r"line 3: 3 cells, expected 2; write decimals with a point, or separate cells by"),
        (b"E;t\n1;2\n1,5\n", "line 3: 1 cells, expected 2"),
        (b"E,E\n1,2\n", "names a column twice: E"),
        (b"E,t\n1,inf\n", "line 2: t is NaN or infinity"),
        (b"E,t\n\n# remark\n1,\n", "line 4: '' is no number, as t must be; leave out the line"),
        (b"E,t\n1,5%\n", "line 2: '5%' is no number.*a share as the number itself"),
        (b"E,t\n1,5 mm\n", "line 2: '5 mm' is no number.*the number alone, in the model's unit"),
        (b"E;t\n1.5;2,5\n", "line 2: '2,5' has a decimal comma, others have points"),
        (b'E,t\n"1,234.5",2\n', "line 2: '1,234.5' is no number.*without separators of thousands"),
        (b"E,t\n1_000,2\n", "line 2: '1_000' is no number"),
        (b"E,t\n0x10,2\n", "line 2: '0x10' is no number"),
        (b"E t\n1 2\n", "separates cells by spaces"),
        (b"#E,t\n1,2\n3,4\n", "begins with numbers .1, ....; name the columns in a first line without #"),
        (b'"E, a, b";t\n1;2\n', "has the columns E, a, b, t; expected the inputs"),
    ],
)
def test_what_is_no_table_or_ambiguous_is_refused_with_the_line_and_the_fix(tmp_path, content, message):
    path = tmp_path / "points.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        PointsFile(path).points([[0.0, 9.0]] * 2, ("E", "t"))


def test_design_points_are_read_as_measurements_are(tmp_path):
    path = tmp_path / "points.CSV"
    path.write_bytes("t;E\r\n2,5;1e3\r\n-0,5;7\r\n".encode("utf-16"))
    points = PointsFile(path).points([[0.0, 9.0]] * 2, ("E", "t"))
    assert points.tolist() == [[1000.0, 2.5], [7.0, -0.5]]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[1.0, np.nan]]), "NaN or infinity, first in point 1"),
        (np.array([[1.0 + 2.0j, 1.0]]), "complex128; expected one array of real numbers"),
        (np.array([["1", "2"]]), "expected one array of real numbers"),
    ],
)
def test_arrays_of_points_that_are_no_real_numbers_are_refused(tmp_path, array, message):
    np.save(tmp_path / "points.npy", array)
    with pytest.raises(ValueError, match=message):
        PointsFile(tmp_path / "points.npy").points([[0.0, 9.0]] * 2, ("E", "t"))


def test_lines_are_counted_as_an_editor_does(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("# remark\n\na,b\n1,2\n\n3,4\n")
    table = read_table(path)
    assert table.header == ("a", "b") and table.lines == (4, 6) and table.separator == ","
