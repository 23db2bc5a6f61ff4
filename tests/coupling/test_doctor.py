"""`sobofem doctor`: what is there and well, and what is not, with the way out."""

import subprocess
import sys

import pytest

from sobofem.coupling.commands import doctor

BROKEN_MPIEXEC = "#!/bin/sh\nshift 2\n" + '"$@"\n' * 2


def findings(check):
    return {finding.subject: finding for finding in check()}


@pytest.mark.slow
def test_an_installation_that_works_is_told_to(here):
    """Here, where all tests run: with FEniCSx and PyTorch."""
    code, output, _ = here("doctor")
    assert code == 0, output
    for subject in ("Python", "numpy", "HDF5", "FEniCSx", "MPI", "mpiexec", "cache", "compiler", "threads", "PyTorch"):
        assert f" {subject} " in output
    assert "broken" not in output


def test_a_launcher_of_another_mpi_is_found_out(monkeypatch, tmp_path):
    """Such a one starts programs that know nothing of each other."""
    launcher = tmp_path / "mpiexec"
    launcher.write_text(BROKEN_MPIEXEC)
    launcher.chmod(0o755)
    monkeypatch.setattr(doctor, "_beside_python", lambda program: str(launcher))
    found = findings(doctor.message_passing)["mpiexec"]
    assert found.broken and "each alone" in found.found and "another MPI" in found.remedy


@pytest.mark.parametrize(("compiler", "words"), [("no-such-cc", "there is no no-such-cc"), ("false", "exit code 1")])
def test_a_compiler_that_does_not_compile_is_found_out(compiler, words, monkeypatch, tmp_path):
    monkeypatch.setenv("CC", compiler)
    found = doctor._compiler(tmp_path)
    assert found.broken and words in found.found and found.remedy


def test_a_compiler_that_does_leaves_nothing_behind(tmp_path):
    assert not doctor._compiler(tmp_path).broken
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_a_cache_that_others_may_write_to_is_found_out(monkeypatch, tmp_path):
    tmp_path.chmod(0o777)
    monkeypatch.setenv("SOBOFEM_CACHE", str(tmp_path / "forms"))
    found = findings(doctor.compiled_forms)["cache"]
    assert found.broken and "chmod go-w" in found.found and "SOBOFEM_CACHE" in found.remedy


@pytest.mark.parametrize(("setting", "well"), [("1", True), ("10000", False), ("many", False)])
def test_more_threads_than_cores_are_noted(setting, well, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", setting)
    found = findings(doctor.threads)["threads"]
    assert not found.broken and bool(found.remedy) is not well


def test_an_old_package_is_found_out(monkeypatch):
    version = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: "1.9" if name == "numpy" else version(name))
    found = findings(doctor.packages)
    assert found["numpy"].broken and "numpy>=2.0" in found["numpy"].remedy
    assert not found["scipy"].broken


def test_what_training_alone_does_not_need_may_be_missing(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    missing = subprocess.CompletedProcess([], 1, "", "ModuleNotFoundError: No module named 'mpi4py'\n")
    monkeypatch.setattr(doctor, "_python", lambda code: missing)
    found = findings(doctor.finite_elements) | findings(doctor.message_passing) | findings(doctor.training)
    assert not any(each.broken for each in found.values())
    assert "pip install 'sobofem[fem]'" in found["FEniCSx"].remedy
    assert not findings(doctor.compiled_forms)


def test_a_program_that_hangs_is_a_finding(monkeypatch):
    monkeypatch.setattr(doctor, "TIMEOUT", 0.2)
    done = doctor._run([sys.executable, "-c", "import time; time.sleep(60)"])
    assert done.returncode == 124 and "no answer" in doctor._last_line(done)


def test_a_check_that_fails_itself_stops_no_other(monkeypatch, here):
    def unlucky():
        raise RuntimeError("what nobody thought of [red]")

    monkeypatch.setattr(doctor, "CHECKS", (unlucky, doctor.threads))
    code, output, _ = here("doctor")
    assert code == 1 and "what nobody thought of [red]" in output and "threads" in output
