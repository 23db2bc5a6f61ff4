"""`sobofem calibrate`: from a surrogate and a CSV file to numbers, draws and pictures."""

import csv
import json
import signal
import sys
import time

from contexts import labels_believed
from launching import TOYS, sobofem, start
import numpy as np
import pages
import pytest
from toys import smooth

from sobofem import surrogate
from sobofem.coupling import Dataset, describe
from sobofem.coupling.calibration import synthetic

TRUTH = np.array([1.9e5, 1.3, 2.1])
PICTURES = ("posterior.png", "fit.png", "identifiability.png")
QUICK = ("--draws", 100, "--tune", 100, "--chains", 2, "--starts", 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A surrogate of `toys.smooth`, and measurements of it with noise."""
    place = tmp_path_factory.mktemp("calibrate")
    rng = np.random.default_rng(0)
    low, high = smooth.bounds.T
    x = low + rng.uniform(size=(40, 3)) * (high - low)
    y, dy = zip(*map(smooth.evaluate, x), strict=True)
    data = Dataset.from_arrays(x, y, dy, description=describe(smooth))
    with labels_believed():
        found = surrogate.fit(data, families=(surrogate.Kriging(starts=(-7.0,), iterations=40),))
    found.save(place / "smooth.safetensors")
    truth = smooth.evaluate(TRUTH)[0]
    synthetic(truth, smooth.responses, [0.05, 0.1, 0.05], seed=2).write(place / "measured.csv")
    return place


def result(folder):
    return json.loads((folder / "calibration.json").read_text())


@pytest.mark.slow
def test_without_a_model_the_surrogate_tells_parameters_and_their_uncertainty(here, folder, tmp_path):
    out = tmp_path / "result"
    code, output, _ = here("calibrate", folder / "smooth.safetensors", folder / "measured.csv", "--out", out, *QUICK)
    assert code == 0, output
    found = result(out)
    ends = np.array(list(found["surrogate_posterior"]["interval_95"].values()))
    assert (ends[:, 0] < TRUTH).all() and (ends[:, 1] > TRUTH).all()
    assert found["certified"] is None and found["model_posterior"] is None
    assert found["solves"] == {"to_certify": 0, "to_accept": 0}
    assert found["identifiability"]["singular_values"][-1] > 1.0
    assert "All 3 combinations of parameters are determined" in output.replace("\n", " ")
    for picture in PICTURES:
        assert (out / picture).stat().st_size > 10_000
    with (out / "draws.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header == ["chain", "E", "t", "p"] and len(rows) >= 100
    page = pages.check(out / "report.html", out / "calibration.json")
    assert "By the surrogate alone" in page.text and "Calibration of smooth.safetensors" in page.text


@pytest.mark.slow
def test_with_a_model_it_certifies_and_solves_at_draws(here, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    out = tmp_path / "result"
    code, output, _ = here(
        "calibrate",
        "smooth.safetensors",
        "measured.csv",
        "--out",
        out,
        "--model",
        "toys:smooth",
        "--solves",
        24,
        "--fix",
        "E=1.9e5",
        "--prior",
        "t=normal:1.3,0.2",
        *QUICK,
    )
    assert code == 0, output
    found = result(out)
    assert found["certified"] is True
    assert set(found["estimate"]) == {"t", "p"}
    assert found["solves"]["to_accept"] == 24 and found["solves"]["to_certify"] <= 3
    assert found["model_posterior"]["effective_draws"] > 20
    (kept,) = out.glob("solves-*.h5")
    assert len(Dataset.open(kept)) == 24
    assert (out / "solved_draws.csv").read_text().startswith("weight,t,p")


@pytest.mark.slow
def test_two_ranks_find_what_one_finds(here, folder, tmp_path):
    files = (folder / "smooth.safetensors", folder / "measured.csv", "--model", f"{TOYS}:factory", "--solves", 12)
    code, output, _ = here("calibrate", *files, "--out", tmp_path / "alone", *QUICK)
    assert code == 0, output
    done = sobofem("calibrate", *files, "--out", tmp_path / "both", *QUICK, ranks=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("numbers, draws and pictures written") == 1
    assert result(tmp_path / "both") == result(tmp_path / "alone")


@pytest.mark.slow
def test_ctrl_c_while_drawing_ends_it_at_once_with_a_word(folder, tmp_path):
    files = (folder / "smooth.safetensors", folder / "measured.csv", "--out", tmp_path / "result")
    process = start("calibrate", *files, "--draws", 100_000)
    assert process.stderr is not None
    while "draws" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, output = process.communicate(timeout=20)
    assert process.returncode == 130
    assert output.splitlines()[-1].startswith("stopped by SIGINT; ")
    assert "Interrupted; solves at draws are in" in pages.read(tmp_path / "result" / "report.html").text
    assert not (tmp_path / "result" / "calibration.json").exists()


@pytest.mark.slow
def test_a_noise_of_unknown_size_is_learned(here, folder, tmp_path):
    truth = smooth.evaluate(TRUTH)[0]
    data = synthetic(np.tile(truth, 12), smooth.responses * 12, np.tile([0.05, 0.1, 0.05], 12), seed=2)
    type(data)(data.responses, data.values, data.standard_deviation / 5.0).write(tmp_path / "many.csv")
    arguments = (folder / "smooth.safetensors", tmp_path / "many.csv", "--out", tmp_path / "result", *QUICK)
    code, _, _ = here("calibrate", *arguments, "--unknown-noise")
    assert code == 0
    assert result(tmp_path / "result")["noise_factor"] == pytest.approx(5.0, rel=0.3)


@pytest.mark.slow
def test_a_misfit_is_said_first_written_first_and_ends_with_exit_code_1(here, folder, tmp_path):
    """Every value is ten times too large; the file is a spreadsheet's, with decimal commas."""
    truth = 10.0 * smooth.evaluate(TRUTH)[0]
    lines = [f"{name};{value:.6f};0,05".replace(".", ",") for name, value in zip(smooth.responses, truth, strict=True)]
    (tmp_path / "measured.csv").write_bytes(
        "\r\n".join(["# gemessen für Übung", "response;value;sd", *lines]).encode("cp1252")
    )
    arguments = (folder / "smooth.safetensors", tmp_path / "measured.csv", "--out", tmp_path / "result", *QUICK)
    code, output, _ = here("calibrate", *arguments)
    assert code == 1
    assert output.lstrip().startswith("Misfit: the model does not explain the measurements")
    found = result(tmp_path / "result")
    assert next(iter(found)) == "fit" and not found["fit"]["explained"]
    assert found["warnings"][0].startswith("the model does not explain")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--prior", "t"), "'t' is no NAME=DISTRIBUTION; write --prior young=normal:200e3,5e3"),
        (("--prior", "t=cauchy:loc=1"), "cauchy:loc=1 is no prior that a calibration knows"),
        (("--prior", "q=log"), "prior of q, but the parameters are E, t, p"),
        (("--fix", "t=thick"), "'t=thick' is no NAME=VALUE; write --fix young=200e3"),
        (("--fix", "t=9"), "outside its bounds"),
        (("--model", "toys:nowhere"), "nowhere"),
        (("--model", f"{TOYS}:smooth", "--ranks-per-solve", 2), "groups of 2 ranks can't be made of 1"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(here, folder, tmp_path, arguments, words):
    files = (folder / "smooth.safetensors", folder / "measured.csv")
    code, _, output = here("calibrate", *files, "--out", tmp_path / "result", *arguments)
    assert code == 2
    assert output.startswith("error: ") and words in output and output.count("\n") == 1


def test_a_missing_sampler_is_told_before_the_work(here, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nutpie", None)
    files = (folder / "smooth.safetensors", folder / "measured.csv")
    code, _, output = here("calibrate", *files, "--out", tmp_path / "result")
    assert code == 2 and "pip install 'sobofem[studies]'" in output
    assert "least squares" not in output


def test_missing_files_and_a_file_for_a_folder_are_told(here, folder, tmp_path):
    (tmp_path / "taken").write_text("")
    network, measured = folder / "smooth.safetensors", folder / "measured.csv"
    for arguments, words in (
        ((tmp_path / "none.safetensors", measured, "--out", tmp_path / "a"), "none.safetensors"),
        ((network, tmp_path / "none.csv", "--out", tmp_path / "a"), "none.csv"),
        ((network, measured, "--out", tmp_path / "taken"), "name a folder"),
    ):
        code, _, output = here("calibrate", *arguments)
        assert code == 2 and words in output
