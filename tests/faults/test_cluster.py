"""A cluster on one machine: nodes are network namespaces, each with its own name and address.

torchrun runs on each, as on a real cluster. Everything lives in the namespaces: no address, route
or link of the machine itself is touched, and all is gone when the test ends.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jobs import Job, last_words, started, torchrun

PORT = 29400
TIMEOUT_S = 15  # --dist-timeout of the runs that break


class Cluster:
    """Nodes joined by a bridge; node i has the name node<i> and the address 10.77.0.<i + 1>.

    Made and removed by `cluster()`.
    """

    def __init__(self, count):
        tag = f"tr{os.getpid() % 100000}"
        self.hub, self.nodes = f"{tag}h", [f"{tag}n{i}" for i in range(count)]

    def build(self):
        for space in (self.hub, *self.nodes):
            ip("netns", "add", space)
        ip("-n", self.hub, "link", "add", "br0", "type", "bridge")
        ip("-n", self.hub, "link", "set", "br0", "up")
        for i, node in enumerate(self.nodes):
            ip("link", "add", f"port{i}", "netns", self.hub, "type", "veth",
               "peer", "name", "eth0", "netns", node)
            ip("-n", self.hub, "link", "set", f"port{i}", "master", "br0", "up")
            ip("-n", node, "addr", "add", f"{self.address(i)}/24", "dev", "eth0")
            ip("-n", node, "link", "set", "lo", "up")
            ip("-n", node, "link", "set", "eth0", "up")

    def remove(self):
        for space in (*self.nodes, self.hub):
            with contextlib.suppress(subprocess.CalledProcessError):
                for pid in self.processes(space):
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
                ip("netns", "delete", space)

    def address(self, node):
        return f"10.77.0.{node + 1}"

    def processes(self, space):
        return map(int, ip("netns", "pids", space).split())

    def command(self, node, words):
        """`words` as they run on a node."""
        named = f'hostname node{node}; exec "$@"'
        return ["ip", "netns", "exec", self.nodes[node], "unshare", "--uts", "sh", "-c", named,
                "sh", *words]

    def kill(self, node):
        """All processes of a node at once."""
        for pid in self.processes(self.nodes[node]):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def cut(self, node):
        """No packet reaches the node or leaves it any more; nobody is told."""
        ip("-n", self.hub, "link", "set", f"port{node}", "down")


def ip(*words):
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def missing():
    """Why there can be no cluster here; "" when there can."""
    if sys.platform != "linux" or not shutil.which("ip") or not shutil.which("unshare"):
        return "no iproute2 or util-linux here"
    name = f"tr{os.getpid()}probe"
    steps = (f"ip netns add {name}", f"ip -n {name} link add end0 type veth peer name end1",
             f"ip -n {name} link add br0 type bridge",
             f"ip netns exec {name} unshare --uts hostname {name}")
    tried = subprocess.run(["sh", "-c", " && ".join(steps)], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "delete", name], capture_output=True)
    return "" if tried.returncode == 0 else f"no rights for network namespaces: {tried.stderr}"


@pytest.fixture
def cluster():
    """`cluster(2)` is a Cluster of two nodes."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    built = []

    def build(count):
        built.append(Cluster(count))
        built[0].build()
        return built[0]

    yield build
    for each in built:
        each.remove()


def static(cluster, node, *words):
    """torchrun with --master-addr."""
    return cluster.command(node, torchrun(
        "--nnodes", len(cluster.nodes), "--node-rank", node, "--nproc-per-node", 1,
        "--master-addr", cluster.address(0), "--master-port", PORT, *words))


def elastic(cluster, node, *words):
    """torchrun with the c10d rendezvous, whose store is on node 0."""
    return cluster.command(node, torchrun(
        "--nnodes", len(cluster.nodes), "--nproc-per-node", 1, "--rdzv-backend", "c10d",
        "--rdzv-endpoint", f"{cluster.address(0)}:{PORT}", "--rdzv-id", "one", "--rdzv-conf",
        f"is_host={int(node == 0)}", "--local-addr", cluster.address(node), *words))


@contextlib.contextmanager
def running(cluster, job, launcher=static, *words):
    """The job on all nodes."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(started(
            [*launcher(cluster, node, *words), *job.words], job.out / f"said{node}",
            {"GLOO_SOCKET_IFNAME": "eth0"})) for node in range(len(cluster.nodes))]


def finish(runs, timeout_s=200):
    """Each node's (status, text)."""
    deadline = time.monotonic() + timeout_s
    return [run.finish(max(1, deadline - time.monotonic())) for run in runs]


@pytest.mark.fault
@pytest.mark.parametrize("launcher", [static, pytest.param(elastic, marks=pytest.mark.slow)])
def test_a_rank_that_is_killed_on_the_second_node_comes_back(
        launcher, cluster, data, unbroken, tmp_path):
    """Both nodes start again; the losses are those of two unbroken processes on one machine."""
    nodes = cluster(2)
    job = Job("resnest", data, tmp_path / "out", "--max-iters 40 --save-every 2 --resume latest")
    with running(nodes, job, launcher, "--max-restarts", 2) as runs:
        runs[1].wait_for(lambda: len(job.losses) >= 5)
        os.kill(runs[1].rank(1), signal.SIGKILL)
        ends = finish(runs)
    assert [status for status, _ in ends] == [0, 0], ends
    assert job.losses == unbroken("resnest", 40)


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.parametrize("name, count", [("yolact", 2), ("seg", 2), ("resnest", 3),
                                         ("queryinst", 2)])
def test_nodes_compute_what_one_machine_does(name, count, cluster, data, unbroken, tmp_path):
    nodes = cluster(count)
    job = Job(name, data, tmp_path / "out", "--max-iters 6")
    with running(nodes, job) as runs:
        ends = finish(runs)
    assert {status for status, _ in ends} == {0}, ends
    assert job.losses == unbroken(name, 6, count)


def broken(cluster, job, act):
    """(each node's last words, seconds until all had ended) after `act` in mid-run."""
    with running(cluster, job) as runs:
        runs[0].wait_for(lambda: len(job.losses) > 3)
        begin = time.monotonic()
        act()
        ends = finish(runs, TIMEOUT_S + 60)
        took_s = time.monotonic() - begin
    return [last_words(text, job.script) for _, text in ends], took_s


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.parametrize("dead", [1, 0])
def test_a_killed_node_is_named(dead, cluster, data, tmp_path):
    nodes = cluster(2)
    job = Job("yolact", data, tmp_path / "out", f"--max-iters 100000 --dist-timeout {TIMEOUT_S}")
    said, took_s = broken(nodes, job, lambda: nodes.kill(dead))
    assert said[1 - dead].startswith(
        f"train_yolact: rank {1 - dead}: cannot go on, rank {dead} on node{dead} did not answer")
    assert took_s < TIMEOUT_S + 40


@pytest.mark.fault
@pytest.mark.slow
def test_a_cut_network_is_named_on_both_sides(cluster, data, tmp_path):
    nodes = cluster(2)
    job = Job("yolact", data, tmp_path / "out", f"--max-iters 100000 --dist-timeout {TIMEOUT_S}")
    said, took_s = broken(nodes, job, lambda: nodes.cut(1))
    for node, line in enumerate(said):
        assert line.startswith(f"train_yolact: rank {node}: cannot go on, rank {1 - node} on "
                               f"node{1 - node} did not answer for")
    assert took_s < TIMEOUT_S + 40


def test_nothing_is_left_of_a_cluster(cluster):
    """Also of one whose test fails."""
    nodes = cluster(2)
    hang = subprocess.Popen(nodes.command(1, ["sleep", "60"]))
    nodes.remove()
    assert hang.wait(10) == -signal.SIGKILL
    assert not any(node in ip("netns", "list") for node in nodes.nodes)
    assert not Path(f"/run/netns/{nodes.hub}").exists()
