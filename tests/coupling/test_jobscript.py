"""The text of job scripts; `tests/cluster` runs them under a real Slurm."""

import json
from pathlib import Path
import re
import subprocess

from launching import TOYS
import pytest
import toys

from sobofem.coupling import Design, generate
from sobofem.coupling.solving.jobscript import Job, Launch, Resources, script, seconds

MODEL = f"{TOYS}:smooth"


def written(**changes):
    """The script of a job with a few settings."""
    launch = {name: changes.pop(name) for name in list(changes) if name in Launch.__dataclass_fields__}
    settings = {
        "launch": Launch(**launch),
        "generate": ("plate.py:model", "--out", "a.h5"),
        "out": "a.h5",
        "resources": Resources(8),
    }
    return script(Job(**(settings | changes)))


def sbatch(text):
    """The options that `sbatch` reads."""
    return [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]


COMPLETE = r"""echo '{"done": 8, "failed": 0, "remaining": 0, "wanted": 8, "jobs": 0, "deaths": 0}'"""


def run(text, folder, SLURM_RESTART_COUNT="0", **programs):
    """Run a script outside Slurm, with programs replaced by lines of shell."""
    for name, line in programs.items():
        (folder / name).write_text(f"#!/bin/bash\n{line}\n")
        (folder / name).chmod(0o755)
    (folder / "job.sh").write_text(text)
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "TMPDIR": str(folder)}
    environment |= {"SLURM_RESTART_COUNT": SLURM_RESTART_COUNT}
    line = ["bash", "job.sh"]
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=30, check=False)


def test_a_script_asks_for_what_it_was_told():
    asked = Resources(8, 2, 4, "1:30:00", "long", "p.42", 3, 60, ("--mem-per-cpu=4G",))
    assert set(sbatch(written(resources=asked, name="plate"))) == {
        "--requeue",
        "--open-mode=append",
        "--job-name=plate",
        "--output=plate-%A_%a.log",
        "--ntasks=8",
        "--nodes=2",
        "--ntasks-per-node=4",
        "--time=1:30:00",
        "--partition=long",
        "--account=p.42",
        "--array=0-2",
        "--signal=TERM@60",
        "--mem-per-cpu=4G",
    }


@pytest.mark.parametrize("launcher", ["srun --mpi=pmi2", "mpiexec -bind-to none"])
@pytest.mark.parametrize("container", [None, "my image.sif"])
def test_scripts_are_valid_shell(tmp_path, launcher, container):
    text = written(launcher=launcher, container=container, setup=("module load 'a b'",), cache=Path("/a b/c'd"))
    (tmp_path / "job.sh").write_text(text)
    checked = subprocess.run(["bash", "-n", str(tmp_path / "job.sh")], capture_output=True, text=True, check=False)
    assert checked.returncode == 0 and not checked.stderr
    assert not [line for line in text.splitlines() if "@@" in line]


def test_any_argument_reaches_generate_as_it_is(tmp_path):
    words = ("it's.py:model", "--out", "a b$HOME.h5", "--input", "E=normal:1,2; rm *", "--points", "`id`.csv")
    text = written(generate=words, out="a b$HOME.h5")
    program = 'if [ "$1" = generate ]; then printf "%s\\n" "$@" >told; fi'
    program += f"; if [ $1 = status ]; then {COMPLETE}; fi"
    done = run(text, tmp_path, srun='shift 2; "$@"', sobofem=program, squeue="echo RUNNING None")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "told").read_text().splitlines() == ["generate", *words]
    assert not list(tmp_path.glob("*restarts*")) and not list(tmp_path.glob("*cache*"))


def test_a_container_is_entered_by_every_rank(tmp_path):
    program = f'[ -d "$5" ] && [ "$(stat -c %a "$5")" = 700 ] || exit 255; echo "$@" >>told; {COMPLETE}'
    text = written(container="my image.sif", cache=Path("new/place"))
    done = run(text, tmp_path, srun='shift 2; "$@"', apptainer=program, squeue="echo RUNNING None")
    assert done.returncode == 0, done.stdout + done.stderr
    before, generation, after = (tmp_path / "told").read_text().splitlines()
    start = rf"exec --bind {tmp_path} --bind new/place/sobofem-cache-\w+ --pwd {tmp_path} my image.sif sobofem "
    assert re.match(start + "generate plate.py:model", generation)
    assert re.match(start + "status a.h5 --json", before) and before == after
    assert not list((tmp_path / "new" / "place").iterdir())


@pytest.mark.parametrize(
    ("code", "computed", "left", "others", "end"),
    [
        (0, 1, 0, 0, 0),
        (0, 0, 0, 0, 0),
        (0, 1, 3, 1, 0),  # other jobs compute the rest
        (0, 1, 3, 0, "requeued"),  # an exit code that lies, and new samples
        (0, 0, 3, 0, 1),  # and none
        (1, 1, 3, 0, "requeued"),
        (1, 0, 3, 0, 1),
        (2, 1, 3, 0, 2),
        (3, 1, 3, 0, 3),
        (75, 0, 3, 0, "requeued"),
        (75, 1, 0, 0, 0),  # told to stop with the last sample
        (130, 1, 3, 0, 130),
        (137, 1, 3, 0, "requeued"),
        (137, 1, 0, 0, 0),  # killed when all was done
        (137, 0, 0, 0, "requeued"),  # or before a dataset that is to grow was looked at
        (9, 0, 3, 0, "requeued"),
    ],
)
def test_what_is_left_decides_and_not_the_exit_code(tmp_path, code, computed, left, others, end):
    (tmp_path / "computed").write_text("4")
    programs = {
        "srun": f"echo {4 + computed} >computed; exit {code}",
        "squeue": "echo RUNNING None",
        "sobofem": f'echo "{{\\"done\\": $(cat computed), \\"failed\\": 0, \\"remaining\\": {left}, '
        f'\\"jobs\\": {others}, \\"deaths\\": 0}}"',
    }
    done = run(written(), tmp_path, **programs, scontrol='echo "$@" >told; kill $PPID')
    assert done.returncode == (75 if end == "requeued" else end), done.stdout + done.stderr
    assert (tmp_path / "told").exists() == (end == "requeued")
    assert end != "requeued" or (tmp_path / "told").read_text() == "requeue 7\n"
    assert not list(tmp_path.glob("*cache*"))


@pytest.mark.parametrize(
    ("program", "starts"),
    [
        ('echo "{\\"done\\": $(wc -l <starts), \\"failed\\": 0, \\"remaining\\": 9, \\"deaths\\": 0}"', 8),
        ('echo "{\\"done\\": 0, \\"failed\\": 0, \\"remaining\\": 9, \\"deaths\\": 0}"', 2),
        ("echo no such image >&2; exit 255", 2),
    ],
)
def test_restarts_go_on_as_long_as_they_find_something_new(tmp_path, program, starts):
    text = written(max_requeues=1, launcher="mpiexec").replace("for pause in 0 1 5", "for pause in 0")
    (tmp_path / "starts").write_text("")
    programs = {"mpiexec": "echo >>starts; exit 137", "squeue": "echo RUNNING None", "sobofem": program}
    for restart in range(8):
        done = run(text, tmp_path, **programs, scontrol="kill $PPID", SLURM_RESTART_COUNT=str(restart))
        if done.returncode != 75:
            break
    assert (tmp_path / "starts").read_text().count("\n") == starts
    assert done.returncode == (75 if starts == 8 else 1)
    assert "255" not in program or "sobofem status a.h5 fails: no such image" in done.stdout


def test_a_cancelled_job_is_not_requeued(tmp_path):
    programs = {"srun": "exit 75", "squeue": "echo COMPLETING None", "sobofem": "true", "scontrol": "touch told"}
    done = run(written(), tmp_path, **programs)
    assert done.returncode == 75 and "cancelled" in done.stdout and not (tmp_path / "told").exists()


def test_ranks_that_outlive_a_killed_one_are_waited_for_a_minute_only():
    assert "launcher=(srun --mpi=pmi2 --wait=60)" in written()
    assert "launcher=(srun --wait=5)" in written(launcher="srun --wait=5")
    assert 'launcher=(mpiexec -n "$SLURM_NTASKS")' in written(launcher="mpiexec")


def test_scripts_understand_what_status_says(here, tmp_path):
    assert json.loads(here("status", tmp_path / "a.h5", "--json")[1])["remaining"] is None
    generate(toys.smooth, Design("sobol", 8, 3), tmp_path / "a.h5")
    said = here("status", tmp_path / "a.h5", "--json")[1]
    assert json.loads(said) == {"done": 8, "failed": 0, "remaining": 0, "wanted": 8, "jobs": 0, "deaths": 0}
    (tmp_path / "said").write_text(said)
    done = run(written(), tmp_path, srun="true", squeue="echo RUNNING None", sobofem="cat said")
    assert done.returncode == 0 and "nothing is left to do" in done.stdout


def test_time_limits_are_read_as_slurm_reads_them():
    times = {"90": 5400, "1:30": 90, "1:30:00": 5400, "2-12": 216000, "1-0:30": 88200, "1-1:1:1": 90061}
    assert {time: seconds(time) for time in times} == times


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--time", "1h"], "is no time limit; write minutes (90), hours:minutes:seconds"),
        (["--time", "2"], "the grace of 120 s leaves nothing of a time limit of 2"),
        (["--ntasks", 9, "--nodes", 2, "--ntasks-per-node", 4], "9 ranks do not fit on 2 nodes with 4 each"),
        (["--ntasks", 6, "--ranks-per-solve", 4], "groups of 4 ranks can't be made of 6; start 4, 5, 8 or 9"),
        (["--partition", "a b"], "--partition 'a b' has characters other than"),
        (["--launcher", ""], "--launcher is empty"),
        (["--directive", "mem=4G"], "is no option, such as"),
        (["--container", "none.sif"], "apptainer build none.sif sobofem.def"),
        (["--ntask", 3], "--ntasks"),
        (["--", "--sample", 3], "--samples"),
    ],
)
def test_mistakes_are_told_before_the_night(here, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    code, text, errors = here("jobscript", MODEL, "--out", "a.h5", *options)
    assert code == 2 and message in errors and not text
    assert not list(tmp_path.iterdir())


def test_a_model_file_that_is_not_here_is_named(here):
    code, _, errors = here("jobscript", "absent.py:model", "--out", "a.h5")
    assert code == 2 and "there is no file absent.py here" in errors


def test_the_command_writes_a_script_and_overwrites_none(here, tmp_path):
    file = tmp_path / "job.sh"
    line = ("jobscript", MODEL, "--out", "plate a.h5", "--nodes", 2, "--ntasks-per-node", 4, "--ranks-per-solve", 2)
    code, text, _ = here(*line, "--script", file, "--", "--samples", 256)
    assert code == 0 and f"sbatch {file}" in text
    options = sbatch(file.read_text())
    assert "--ntasks=8" in options and "--job-name=plate-a" in options
    assert f"generate {MODEL} --out 'plate a.h5' --ranks-per-solve 2 --samples 256" in file.read_text()
    code, _, errors = here(*line, "--script", file)
    assert code == 2 and "overwrite it with --force" in errors
    assert here(*line, "--script", file, "--force")[0] == 0
    assert here(*line)[1] == file.read_text()


@pytest.mark.parametrize(
    ("template", "lines"),
    [
        (
            "pbs",
            {
                "#PBS -l select=2:ncpus=4:mpiprocs=4",
                "#PBS -l walltime=01:30:00",
                "#PBS -N plate",
                "#PBS -q long",
                "#PBS -A p.42",
                "#PBS -J 0-2",
                "#PBS -l mem=4gb",
            },
        ),
        (
            "lsf",
            {
                "#BSUB -J plate[1-3]",
                "#BSUB -n 8",
                "#BSUB -R 'span[ptile=4]'",
                "#BSUB -W 01:30",
                "#BSUB -q long",
                "#BSUB -P p.42",
                "#BSUB -l mem=4gb",
            },
        ),
    ],
)
def test_other_schedulers_are_asked_for_the_same(template, lines):
    asked = Resources(8, 2, 4, "1:30:00", "long", "p.42", 3, 60, ("-l mem=4gb",))
    text = written(resources=asked, name="plate", template=template, file=Path("job.sh"))
    assert lines <= set(text.splitlines()) and "limit=5400 grace=60" in text
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0


@pytest.mark.parametrize(("template", "submit"), [("pbs", "qsub"), ("lsf", "bsub")])
@pytest.mark.parametrize(
    ("code", "computed", "left", "end"),
    [(0, 1, 0, 0), (75, 1, 3, "again"), (137, 0, 3, "again"), (1, 1, 3, "again"), (1, 0, 3, 1), (2, 1, 3, 2)],
)
def test_a_chain_of_jobs_goes_on_until_nothing_is_left(tmp_path, template, submit, code, computed, left, end):
    (tmp_path / "computed").write_text("4")
    programs = {
        "mpiexec": f"echo {4 + computed} >computed; exit {code}",
        "sobofem": f'echo "{{\\"done\\": $(cat computed), \\"failed\\": 0, \\"remaining\\": {left}, \\"jobs\\": 0}}"',
        submit: "cat >submitted",
    }
    text = written(template=template, file=Path("job.sh"), resources=Resources(8, array=2), name="plate")
    done = run(text, tmp_path, **programs)
    assert done.returncode == (0 if end == "again" else end), done.stdout + done.stderr
    assert (tmp_path / "submitted").exists() == (end == "again")
    if end == "again":  # by itself: the array is there already
        again = (tmp_path / "submitted").read_text()
        assert "plate[" not in again and "-J 0-1" not in again and "generate plate.py:model" in again
    assert bool(list(tmp_path.glob("*restarts*"))) == (end == "again") and not list(tmp_path.glob("sobofem-cache*"))


def test_a_chain_tells_its_ranks_to_stop_before_the_time_limit(tmp_path):
    text = written(template="pbs", file=Path("job.sh"), resources=Resources(8, time="0:02", grace=1))
    waits = "trap 'touch told; exit 75' TERM; for k in $(seq 100); do sleep 0.1; done"
    done = run(text, tmp_path, mpiexec=waits, sobofem='echo "{\\"remaining\\": 3}"', qsub="cat >submitted")
    assert done.returncode == 0 and (tmp_path / "told").exists() and (tmp_path / "submitted").exists()


def test_a_chain_has_to_know_its_own_script():
    with pytest.raises(ValueError, match="--script"):
        written(template="pbs")


def test_a_site_brings_a_template_of_its_own(here, tmp_path):
    (tmp_path / "site.sh").write_text("#!/bin/bash\n#QSUB -n @@{ranks}\nrun @@{sobofem} @@{generate}\n")
    line = ("jobscript", MODEL, "--out", "a.h5", "--ntasks", 4, "--template")
    code, text, _ = here(*line, tmp_path / "site.sh", "--", "--samples", 8)
    assert code == 0
    assert text == f"#!/bin/bash\n#QSUB -n 4\nrun sobofem generate {MODEL} --out a.h5 --samples 8\n"
    (tmp_path / "site.sh").write_text("@@{rank}")
    code, _, errors = here(*line, tmp_path / "site.sh")
    assert code == 2 and "'rank'" in errors and "@@{ranks}" in errors
    code, _, errors = here(*line, "torque")
    assert code == 2 and "torque" in errors
