"""A Slurm of one node on this machine, from Debian's `slurm-wlm` and `munge`, with files and ports of its own."""

import getpass
import os
from pathlib import Path
import shutil
import signal
import socket
import subprocess
import tempfile
import time

SEARCH = os.environ["PATH"] + os.pathsep + "/usr/sbin"
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue")
CONFIGURATION = """\
ClusterName=sobofem
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# `cred_expire` is also how long a requeued job waits; it is two minutes by default.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
# MPICH names shared memory after the job: never the same as in an earlier run of the tests.
FirstJobId={first}
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,batch_sched_delay=0
KillWait=10
# More processors than there are: the jobs of the tests mostly sleep, and can do so at the same time.
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=32 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing():
    """Programs that a Slurm needs and that are not installed."""
    return [name for name in NEEDED if shutil.which(name, path=SEARCH) is None]


class Controller:
    """While entered, munged, slurmctld and slurmd run; they are ended by their pid files, come what may."""

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="sobofem-slurm-"))  # a short path: sockets allow 107 characters
        self.environment = os.environ | {"PATH": SEARCH, "SLURM_CONF": str(self.folder / "slurm.conf")}
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if (self.folder / "slurmctld.pid").exists():
            subprocess.run(["scancel", "--user", getpass.getuser()], env=self.environment, timeout=20, check=False)
            self._wait(lambda: not self.run("squeue", "--noheader"), 40, "all jobs to end", give_up=True)
        for name in ("slurmd", "slurmctld", "munged"):
            stop(self.folder / f"{name}.pid")
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *command, cwd=None):
        """Output of a command of Slurm."""
        done = subprocess.run(command, env=self.environment, cwd=cwd, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def submit(self, script):
        """Submit a script from its own folder; the number of the job."""
        return self.run("sbatch", "--parsable", script.name, cwd=script.parent)

    def job(self, number):
        """What Slurm knows of a job, or of each task of an array."""
        lines = self.run("scontrol", "--oneliner", "show", "job", number).splitlines()
        return [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]

    def ended(self, number, *, seconds):
        """Wait until a job, with all tasks of an array, is over."""

        def over():
            states = {task["JobState"] for task in self.job(number)}
            return states <= {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}

        self._wait(over, seconds, f"job {number} to end")
        return self.job(number)

    def _start(self):
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        names = {"host": socket.gethostname().partition(".")[0], "user": getpass.getuser()}
        names["first"] = int(time.time()) % 60_000_000
        text = CONFIGURATION.format(folder=self.folder, ports=free_ports(2), **names)
        (self.folder / "slurm.conf").write_text(text)
        files = {"key-file": key.name, "socket": "munge.socket", "log-file": "munged.log"}
        files |= {"pid-file": "munged.pid", "seed-file": "munged.seed"}
        self.run("munged", "--force", *(f"--{option}={self.folder / name}" for option, name in files.items()))
        self.run("slurmctld")
        self.run("slurmd")
        self._wait(lambda: self.run("sinfo", "--noheader", "--format=%T") == "idle", 30, "the node to be idle")

    def _wait(self, condition, seconds, what, *, give_up=False):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                assert give_up, f"waited {seconds} s in vain for {what}\n{self.logs()}"
                return
            time.sleep(0.5)

    def logs(self):
        """The end of each daemon's log."""
        return "\n".join(f"{file.name}: {file.read_text()[-3000:]}" for file in self.folder.glob("*.log"))


def stop(pid_file):
    """End a daemon by its pid file: politely, and by force after ten seconds."""
    try:
        process = int(pid_file.read_text())
        os.kill(process, signal.SIGTERM)
        for _ in range(100):
            time.sleep(0.1)
            os.kill(process, 0)
        os.kill(process, signal.SIGKILL)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return


def free_ports(count):
    """Ports that nobody listens on just now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
