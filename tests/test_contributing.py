"""Every part of one's own that CONTRIBUTING.md shows works from a file outside of the package."""

from functools import partial
import importlib.util
from pathlib import Path
import re
import sys

from contexts import parts_forgotten
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
SECTION = re.compile(r"^### ([^\n]+)\n.*?```python\n(.*?)```", re.DOTALL | re.MULTILINE)
LISTED = ("Loss weighting", "Network", "Family of surrogates", "Design", "Material", "Response kind", "Parameter kind")
FILES = {title: text for title, text in SECTION.findall((ROOT / "CONTRIBUTING.md").read_text())}
NAMES = {"Loss weighting": "weighting", "Family of surrogates": "family", "Response kind": "response"} | {
    "Parameter kind": "parameter", "Problem of the library": "library", "Optimizer's predictor": "predictor",
    "Purpose of a study": "study",
}  # fmt: skip


class Smooth:
    """A model of two responses, for surrogates of no finite elements."""

    parameters, responses = ("a", "b"), ("sum", "product")
    bounds = np.array([[0.5, 2.0], [1.0, 3.0]])
    digest = "smooth"

    def evaluate(self, x, *, jacobian=True):
        a, b = x
        return np.array([a + b, a * b]), np.array([[1.0, 1.0], [b, a]]) if jacobian else None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with all files of the page, samples of a model, and a network trained with the parts."""
    from sobofem.coupling import Design, generate

    folder = tmp_path_factory.mktemp("own")
    for title, text in FILES.items():
        (folder / f"{NAMES.get(title, title.lower())}.py").write_text(text)
    generate(Smooth, Design("sobol", 16, 1), folder / "bar.h5")
    return folder


@pytest.fixture
def own(folder, monkeypatch):
    """Imports a file of the page as a script does."""
    monkeypatch.chdir(folder)

    def imported(name):
        spec = importlib.util.spec_from_file_location(f"own_{name}", folder / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return imported


@pytest.fixture
def sobofem(here, folder, monkeypatch):
    """The command line in the folder of the page; what it prints."""
    monkeypatch.chdir(folder)

    def run(*arguments, code=0):
        ended, output, errors = here(*arguments)
        assert ended == code, output + errors
        return output if code == 0 else errors

    return run


def test_the_page_has_an_example_of_each_kind_of_part():
    assert set(LISTED) < set(FILES) and {*NAMES} < set(FILES) and "Command" in FILES
    assert len(FILES) == (ROOT / "CONTRIBUTING.md").read_text().count("```python")


def test_its_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / "CONTRIBUTING.md").read_text()):
        assert (ROOT / target).exists(), target


@pytest.mark.slow
def test_a_network_and_a_weighting_train_by_the_command_line_and_are_read_back(sobofem, monkeypatch):
    from sobofem import surrogate

    monkeypatch.setattr(surrogate, "train", partial(surrogate.train, optimizers=(surrogate.LBFGS(iterations=5),)))
    train = ("train", "bar.h5", "--descent", "--network", "Cubic", "--weighting", "Halved", "--out", "bar.safetensors")
    with parts_forgotten():
        assert "trained on 16 samples" in sobofem("--use", "network.py", "--use", "weighting.py", *train)
        assert "surrogate: Cubic(width=8)" in sobofem("--use", "network.py", "info", "bar.safetensors")
    refused = sobofem("info", "bar.safetensors", code=2)
    assert "network 'Cubic' is unknown" in refused and "give the file that defines it: sobofem --use FILE" in refused


@pytest.mark.slow
def test_a_network_of_the_page_learns_a_product(own, folder):
    from sobofem import surrogate
    from sobofem.coupling import Dataset

    data = Dataset.open(folder / "bar.h5")
    weighting, network = own("weighting").Halved(10), own("network").Cubic(4)
    trained = surrogate.train(data, network=network, weighting=weighting, optimizers=(surrogate.LBFGS(iterations=300),))
    assert np.abs(trained.predict(data.x)[0] - data.y).max() < 0.05
    first, last = trained.history.weights[[0, -1]]
    assert last[0, 1] / last[0, 0] == pytest.approx(0.5 * first[0, 1] / first[0, 0])


@pytest.mark.slow
@pytest.mark.usefixtures("labels_believed")
def test_a_family_is_chosen_where_it_fits_and_is_saved(own, folder):
    from sobofem import surrogate
    from sobofem.coupling import Dataset

    data = Dataset.open(folder / "bar.h5")
    fitted = surrogate.fit(data, families=(own("family").Plane(), surrogate.Kriging(iterations=10)))
    assert fitted.provenance["choice"]["shares"].keys() == {"plane", "Gaussian process"}
    fitted.save(folder / "family.safetensors")
    again = surrogate.load(folder / "family.safetensors")
    np.testing.assert_array_equal(again.predict(data.x)[0], fitted.predict(data.x)[0])


@pytest.mark.slow
def test_a_design_and_a_command_work_by_the_command_line(sobofem):
    model = f"{Path(__file__)}:Smooth"
    wanted = ("generate", model, "--design", "random", "--out", "random.h5")
    sobofem("--use", "design.py", *wanted, "--samples", 4)
    sobofem("--use", "design.py", *wanted, "--samples", 8)
    assert "design random" in sobofem("info", "random.h5")
    output = sobofem("--use", "command.py", "worst", "random.h5", "--response", "product")
    assert re.fullmatch(r"a = \S+, b = \S+\n", output)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "function", "old", "new"),
    [
        ("material", "stiffening_bar", "strain**4 / 4", "strain**6 / 6"),
        ("response", "bar", "(quantity**2 * measure", "(quantity**4 * measure"),
        ("parameter", "bar", "10.0 **", "11.0 **"),
    ],
)
def test_parts_of_a_problem_have_right_derivatives_and_are_in_its_digest(folder, file, function, old, new):
    from sobofem.coupling import load_model, taylor_test

    model = load_model(f"{folder / file}.py:{function}")
    report = taylor_test(model, seed=1)
    assert report.passed, report.rows
    text = (folder / f"{file}.py").read_text()
    assert old in text
    (folder / f"changed_{file}.py").write_text(text.replace(old, new))
    assert load_model(f"{folder / file}.py:{function}").digest == model.digest
    assert load_model(f"{folder / f'changed_{file}'}.py:{function}").digest != model.digest


@pytest.mark.slow
def test_the_rod_of_the_library_agrees_with_its_closed_form(folder):
    from sobofem.coupling import load_model

    rod = load_model(f"{folder / 'library.py'}:heated_rod")
    assert rod.evaluate([2.0, 24.0])[0] == pytest.approx([24.0 / 2.0 / 12.0])


@pytest.mark.slow
def test_a_predictor_guides_an_optimization(own):
    from sobofem.coupling import optimize

    task = optimize.Task("sum", at_least={"product": 2.5})
    found = optimize.minimize(Smooth(), task, predictors=(own("predictor").Nearest(),))
    assert found.certified


@pytest.mark.slow
def test_a_purpose_of_the_page_is_carried_out(sobofem):
    output = sobofem("run", "study.py")
    assert "$ sobofem verify study/data.h5 --derivatives" in output
    assert "(done) $ sobofem verify" in sobofem("run", "study.py", "--only", "verified")
