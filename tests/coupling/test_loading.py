import subprocess
import sys

from launching import TOYS
import pytest

from sobofem.coupling.contract import Model
from sobofem.coupling.models.loading import find, full_name, library, load_model


class Comm:
    size = 7


def test_files_and_modules_give_models_and_factories():
    assert isinstance(load_model(f"{TOYS}:smooth"), Model)
    assert load_model("toys:fragile").digest == "fragile-1"
    assert load_model(f"{TOYS}:factory").digest == "factory-none"
    assert load_model(f"{TOYS}:factory", Comm()).digest == "factory-7"
    assert load_model(f"{TOYS}:Fragile", Comm()).digest == "fragile-1"


def test_problems_of_the_library_have_short_names_which_are_listed_without_finite_elements():
    assert "plate_with_hole" in library() and all(sentence.endswith(".") for sentence in library().values())
    assert all(find(name) is find(full_name(name)) for name in library())
    assert find("plate_with_hole") is find("fem.library.plate_with_hole:plate_with_hole")  # as earlier studies call it
    code = "import sys; from sobofem.coupling.models.loading import library; library(); print('dolfinx' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_a_script_named_like_a_standard_module_takes_nobodys_place(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path.copy())
    (tmp_path / "colorsys.py").write_text("from helper import model\n")
    (tmp_path / "helper.py").write_text(
        f"import sys; sys.path.append({str(TOYS.parent)!r})\nfrom toys import smooth as model"
    )
    assert isinstance(load_model(f"{tmp_path / 'colorsys.py'}:model"), Model)
    import colorsys

    assert not colorsys.__file__.startswith(str(tmp_path))
    assert sys.path[0] != str(tmp_path) and sys.path[-1] in (str(tmp_path), str(TOYS.parent))


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("toys", ValueError, r"names no model; expected .* or one of cantilever, .*, random_block"),
        ("toys:", ValueError, "names no model; expected"),
        ("none.py:model", FileNotFoundError, "there is no file none.py"),
        ("no.such.module:model", ValueError, r"no module 'no\.such\.module' \(no 'no'\).*file\.py:name"),
        ("toys:smoth", ValueError, r"has no 'smoth'; did you mean 'smooth'\? It has Curved, Deadly, .*, smooth"),
        ("toys:number", TypeError, "type int, neither a Model nor a function"),
        ("toys:nothing", TypeError, "made an object of type int, which is no Model"),
    ],
)
def test_wrong_specifications_say_what_is_wrong(spec, error, message):
    with pytest.raises(error, match=message):
        load_model(spec)
