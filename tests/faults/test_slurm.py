"""slurm_train.sh under a real SLURM, whose daemons run here, on free ports, for the test alone."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jobs import ROOT, Job

pytestmark = pytest.mark.fault
CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=2,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SlurmdParameters=config_overrides
MailProg=/bin/true
KillWait=5
MinJobAge=300
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:8
"""
PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scontrol", "squeue")


def missing():
    """Why there can be no SLURM here; "" when there can."""
    absent = [name for name in PROGRAMS if not shutil.which(name, path=search_path())]
    if absent:
        return f"no {', '.join(absent)} here (Debian: slurm-wlm, munge)"
    return "" if os.geteuid() == 0 else "slurmd wants to be started by root"


def search_path():
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


class Slurm:
    """A controller, a node and their authentication, alive between `start` and `stop`."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.env = os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf"),
                                 "PATH": search_path(), "OMP_NUM_THREADS": "1",
                                 "PYTHON": sys.executable}
        self.daemons = []

    def start(self):
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        host = socket.gethostname().partition(".")[0]
        (self.folder / "slurm.conf").write_text(
            CONFIG.format(host=host, ports=free_ports(2), folder=self.folder))
        self._daemon("munged", "--foreground", "--force", *(
            f"--{kind}={self.folder}/munge.{end}" for kind, end in (
                ("socket", "socket"), ("key-file", "key"), ("log-file", "log"),
                ("pid-file", "pid"), ("seed-file", "seed"))))
        self._wait_for(lambda: (self.folder / "munge.socket").exists())
        self._daemon("slurmctld", "-D", "-c")
        self._daemon("slurmd", "-D")
        self._wait_for(lambda: "idle" in self.ask("sinfo", "--noheader", "--format=%T"))

    def stop(self):
        with contextlib.suppress(subprocess.CalledProcessError, subprocess.TimeoutExpired):
            self.ask("scancel", "--full", "--signal=KILL", "--user=root")
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for pid in holders(self.folder):  # of steps whose daemon is gone
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def ask(self, *words):
        return subprocess.run(words, env=self.env, check=True, capture_output=True, text=True,
                              timeout=30).stdout

    def submit(self, job, *flags):
        """The number of a job that trains."""
        words = [*flags, f"--output={job.out}/said", ROOT / "slurm_train.sh", *job.words]
        told = self.ask("sbatch", "--parsable", f"--chdir={job.out}", *map(str, words))
        return told.strip()

    def state(self, number):
        """(state, exit status, times it was requeued)"""
        told = self.ask("scontrol", "--oneliner", "show", "job", number)
        values = dict(word.split("=", 1) for word in told.split() if "=" in word)
        return values["JobState"], int(values["ExitCode"].split(":")[0]), int(values["Restarts"])

    def wait_for(self, number, state, timeout_s):
        deadline = time.monotonic() + timeout_s
        while self.state(number)[0] != state:
            assert time.monotonic() < deadline, self.state(number)
            time.sleep(0.3)

    def _daemon(self, *command):
        with (self.folder / f"{command[0]}.out").open("w") as out:
            self.daemons.append(subprocess.Popen(command, env=self.env, stdout=out,
                                                 stderr=subprocess.STDOUT))

    def _wait_for(self, happened, timeout_s=30):
        deadline = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(subprocess.CalledProcessError):
                if happened():
                    return
            if time.monotonic() > deadline or any(d.poll() is not None for d in self.daemons):
                logs = [path.read_text(errors="replace")[-2000:]
                        for path in (*self.folder.glob("*.log"), *self.folder.glob("*.out"))]
                raise AssertionError("SLURM did not start:\n" + "\n".join(logs))
            time.sleep(0.1)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    reason = missing()
    if reason:
        pytest.skip(reason)
    running = Slurm(tmp_path_factory.mktemp("slurm"))
    try:
        running.start()
        yield running
    finally:
        running.stop()


def wait_for_updates(slurm, job, number, count, timeout_s=120):
    deadline = time.monotonic() + timeout_s
    while len(job.losses) < count:
        state = slurm.state(number)
        said = job.out / "said"
        assert state[0] in ("RUNNING", "PENDING"), said.read_text() if said.exists() else state
        assert time.monotonic() < deadline, state
        time.sleep(0.05)


def test_a_signalled_job_goes_back_into_the_queue_and_ends_like_an_unbroken_one(
        slurm, data, unbroken, tmp_path):
    """USR1 comes as `#SBATCH --signal` sends it before the time limit."""
    job = Job("resnest", data, tmp_path / "out", "--max-iters 40")
    number = slurm.submit(job)
    wait_for_updates(slurm, job, number, 4)
    slurm.ask("scancel", "--signal=USR1", number)
    slurm.wait_for(number, "COMPLETED", 120)
    said = (job.out / "said").read_text()
    assert slurm.state(number) == ("COMPLETED", 0, 1), said
    assert f"job {number} goes back into the queue" in said
    assert job.losses == unbroken("resnest", 40)


@pytest.mark.slow
def test_a_cancelled_job_stays_cancelled(slurm, data, tmp_path):
    job = Job("resnest", data, tmp_path / "out", "--max-iters 100000")
    number = slurm.submit(job)
    wait_for_updates(slurm, job, number, 4)
    slurm.ask("scancel", number)
    time.sleep(8)  # longer than KillWait
    assert slurm.state(number)[0] == "CANCELLED"
    assert slurm.state(number)[2] == 0
    assert "goes back" not in (job.out / "said").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolact", "seg", "resnest", "queryinst"])
def test_a_time_limit_sends_a_job_back_and_it_goes_on(name, slurm, data, tmp_path):
    """Two minutes a job, told a minute before; no update is lost or done twice."""
    # YOLACT's schedule of this size ends within a minute otherwise
    longer = " --epochs 50000" if name == "yolact" else ""
    job = Job(name, data, tmp_path / "out", f"--max-iters 100000{longer}")
    number = slurm.submit(job, "--time=2", "--signal=USR1@60")
    deadline = time.monotonic() + 200
    while slurm.state(number)[2] == 0:  # SLURM looks at the limits every 30 s
        assert time.monotonic() < deadline
        time.sleep(0.5)
    slurm.wait_for(number, "RUNNING", 60)
    done = len(job.losses)
    wait_for_updates(slurm, job, number, done + 1)
    slurm.ask("scancel", number)
    losses = sorted(job.losses)  # once: the job may still write
    assert losses == list(range(len(losses)))


def holders(folder):
    """Processes whose command line names the folder."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(folder) in path.read_text() and int(path.parent.name) != os.getpid():
                yield int(path.parent.name)


def free_ports(count):
    """Ports that nobody listens at, found by taking them all at once."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
