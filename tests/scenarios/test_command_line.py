"""The command line: one clear line and exit code 2 for every mistake, and `dev`."""

import contextlib
import os
import pty
import re
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest
import redis

from harness import moonraft
from harness.cluster import HOST, PORTS_PER_NODE, Ports
from harness.moonraft import dev_ports
from harness.processes import Process, eventually, free_ports
from harness.wire import Wire

pytestmark = pytest.mark.moonraft_only("it is our command line")

# Long enough to start, be refused and end.
RUN_SECONDS_MAX = 30


def run(*words):
    """A finished run of `moonraft`."""
    command = [str(word) for word in (moonraft.binary(), *words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS_MAX)


def assert_refused(done, *words):
    """Exit code 2 and one line on stderr, in which all `words` occur."""
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, f"not one line:\n{done.stderr}"
    for word in words:
        assert str(word) in lines[0], f"`{word}` is not in: {lines[0]}"
    assert "panicked" not in done.stderr


def tree(directory):
    """Every file below a directory with its content."""
    return {
        path.relative_to(directory): path.read_bytes() if path.is_file() else None
        for path in directory.rglob("*")
    }


@pytest.fixture
def ports():
    """The ports of three nodes."""
    first = free_ports(3 * PORTS_PER_NODE)
    return [Ports.of_node(first + PORTS_PER_NODE * number, 3) for number in range(3)]


@pytest.fixture
def one_node(tmp_path):
    """A cluster file of one node and one shard, and its ports."""
    ports = Ports.of_node(free_ports(PORTS_PER_NODE), 1)
    file = tmp_path / "cluster.toml"
    file.write_text(moonraft.cluster_file([ports], 1))
    return file, ports


@pytest.fixture
def processes():
    """Starts processes that end with the test, whatever happens."""
    started = []

    def start(log_path, *words, directory=None):
        started.append(Process([moonraft.binary(), *words], log_path, directory))
        return started[-1]

    yield start
    for process in started:
        process.signal(signal.SIGKILL)
        process.wait()


def test_version():
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("moonraft ")


def test_no_arguments_and_unknown_arguments():
    for words in ([], ["no-such-command"], ["server"], ["check", "--no-such-option"]):
        done = run(*words)
        assert done.returncode == 2, words
        assert "panicked" not in done.stderr


@pytest.mark.parametrize("limit", [6, 7, 12, 16, 28, 63])
def test_a_process_that_may_open_few_files_is_refused(tmp_path, one_node, limit):
    """Wherever the last descriptor would have gone, in a library too, the line says what to raise."""
    file, _ = one_node
    starts = [["server", "--cluster", file, "--node", "1", "--dir", tmp_path / "d"], ["dev", "--dir", tmp_path]]
    for words in starts:
        limited = ["prlimit", f"--nofile={limit}", moonraft.binary(), *map(str, words)]
        done = subprocess.run(limited, capture_output=True, text=True, timeout=RUN_SECONDS_MAX)
        assert_refused(done, f"may open {limit} files", "ulimit -n")


# Cluster files


def test_check_accepts_a_good_file(tmp_path, ports):
    file = tmp_path / "good.toml"
    file.write_text(moonraft.cluster_file(ports, 3))
    before = tree(tmp_path)
    done = run("check", "--cluster", file)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path) == before


def test_the_file_in_the_repository_is_good():
    done = run("check", "--cluster", moonraft.REPOSITORY / "cluster-configs/three-nodes.toml")
    assert done.returncode == 0, done.stderr


# What is wrong with a file, how to break a good one, and what the line must name.
BROKEN = {
    "not TOML": (lambda text: text.replace("shards = 3", "shards = ="), ["cluster.toml", "2"]),
    "unknown key": (lambda text: "colour = 1\n" + text, ["cluster.toml", "colour"]),
    "unknown setting": (
        lambda text: text.replace("[[node]]", "[settings]\nmaxmemroy = 1\n\n[[node]]", 1),
        ["cluster.toml", "maxmemroy"],
    ),
    "bad value of a setting": (
        lambda text: text.replace("[[node]]", '[settings]\nreads = "dirty"\n\n[[node]]', 1),
        ["cluster.toml", "reads"],
    ),
    "no shards": (
        lambda text: text.replace("shards = 3", "shards = 0"),
        ["cluster.toml", "shards"],
    ),
    "more replicas than nodes": (
        lambda text: text.replace("replicas = 3", "replicas = 5"),
        ["cluster.toml", "replicas"],
    ),
    "no nodes": (lambda text: text[: text.index("[[node]]")], ["cluster.toml", "node"]),
    "the same node twice": (lambda text: text.replace("id = 2", "id = 1"), ["cluster.toml", "id"]),
    "no port": (lambda text: _without(text, "port = "), ["cluster.toml", "port"]),
    "a port that is none": (
        lambda text: re.sub("^port = .*", "port = 70000", text, count=1, flags=re.M),
        ["cluster.toml", "port"],
    ),
}


def _without(text, start):
    lines = text.splitlines()
    lines.remove(next(line for line in lines if line.startswith(start)))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("problem", BROKEN)
def test_a_bad_file_is_refused(tmp_path, ports, problem):
    break_it, named = BROKEN[problem]
    file = tmp_path / "cluster.toml"
    file.write_text(break_it(moonraft.cluster_file(ports, 3)))
    before = tree(tmp_path)
    assert_refused(run("check", "--cluster", file), *named)
    # The server itself is no less strict, and leaves nothing behind.
    done = run("server", "--cluster", file, "--node", 1, "--dir", tmp_path / "data")
    assert_refused(done, *named)
    assert tree(tmp_path) == before


def test_ports_that_overlap_are_refused(tmp_path, ports):
    text = moonraft.cluster_file(ports, 3)
    text = text.replace(f"peer-port = {ports[0].peer}", f"peer-port = {ports[0].clients[2]}")
    file = tmp_path / "cluster.toml"
    file.write_text(text)
    assert_refused(run("check", "--cluster", file), "cluster.toml", ports[0].clients[2])


def test_a_file_that_is_not_there(tmp_path):
    file = tmp_path / "absent.toml"
    assert_refused(run("check", "--cluster", file), "absent.toml")
    assert_refused(run("server", "--cluster", file, "--node", 1, "--dir", tmp_path), "absent.toml")
    assert tree(tmp_path) == {}


# Starting a node


def test_a_node_that_the_file_does_not_have(one_node, tmp_path):
    file, _ = one_node
    done = run("server", "--cluster", file, "--node", 7, "--dir", tmp_path / "data")
    assert_refused(done, "7")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("setting", ["no-such-setting=1", "reads=dirty", "no-equals-sign"])
def test_an_unknown_or_bad_setting(one_node, tmp_path, setting):
    file, _ = one_node
    words = ["server", "--cluster", file, "--node", 1, "--dir", tmp_path / "data"]
    assert_refused(run(*words, "--set", setting), setting.partition("=")[0])
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("which", ["client", "peer", "http"])
def test_a_port_in_use(one_node, tmp_path, which):
    file, ports = one_node
    port = {"client": ports.clients[0], "peer": ports.peer, "http": ports.http}[which]
    with socket.socket() as occupant:
        occupant.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        occupant.bind(("127.0.0.1", port))
        occupant.listen()
        done = run("server", "--cluster", file, "--node", 1, "--dir", tmp_path / "data")
        assert_refused(done, port)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_a_host_that_is_not_this_machine(one_node, tmp_path, host):
    file, _ = one_node
    file.write_text(file.read_text().replace('host = "127.0.0.1"', f'host = "{host}"'))
    done = run("server", "--cluster", file, "--node", 1, "--dir", tmp_path / "data")
    assert_refused(done, host, "'host' is where the node binds")
    assert not (tmp_path / "data").exists()


# What cannot be a data directory, and what the line must say beside its name.
BAD_DIRECTORIES = {
    "a file": (lambda place: (place / "data").write_text("text"), "data"),
    "below a file": (lambda place: (place / "file").write_text("text"), "file/data"),
    "where nobody can make one": (lambda place: None, "/proc/data"),
    "too long a name": (lambda place: None, "x" * 300),
}


@pytest.mark.parametrize("problem", BAD_DIRECTORIES)
def test_what_cannot_be_a_data_directory(one_node, tmp_path, problem):
    make, path = BAD_DIRECTORIES[problem]
    make(tmp_path)
    before = tree(tmp_path)
    done = run("server", "--cluster", one_node[0], "--node", 1, "--dir", tmp_path / path)
    assert_refused(done, path, "must be one that this process can make, read and write")
    assert tree(tmp_path) == before


def test_a_directory_of_other_things(one_node, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "letter.txt").write_text("dear")
    done = run("server", "--cluster", one_node[0], "--node", 1, "--dir", data)
    assert_refused(done, data, "give a new or an empty one")
    assert tree(data) == {Path("letter.txt"): b"dear"}


def test_a_directory_of_another_shape(tmp_path, ports, processes):
    """The numbers of the cluster file cannot change under existing data."""
    file, data = tmp_path / "cluster.toml", tmp_path / "data"
    file.write_text(moonraft.cluster_file(ports, 3))
    words = ["server", "--cluster", file, "--node", 1, "--dir", data]
    owner = processes(tmp_path / "owner.log", *words)
    eventually(lambda: (data / "shape").exists(), what="the node has made the directory its own")
    owner.stop()
    before = tree(data)
    file.write_text(file.read_text().replace("shards = 3", "shards = 2"))
    assert_refused(run(*words), data, "3 shards", "2 shards", "cannot change")
    assert tree(data) == before


def test_a_cluster_file_that_is_none(tmp_path):
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder.toml").mkdir()
    before = tree(tmp_path)
    for name in ("binary.toml", "folder.toml"):
        assert_refused(run("check", "--cluster", tmp_path / name), name)
        done = run("server", "--cluster", tmp_path / name, "--node", 1, "--dir", tmp_path / "data")
        assert_refused(done, name)
    assert tree(tmp_path) == before


def test_nobody_is_let_in_before_the_directory_is_the_nodes_own(one_node, tmp_path, processes):
    """A second process with the same directory and other ports: its clients are refused, not kept waiting."""
    file, _ = one_node
    words = ["server", "--node", 1, "--dir", tmp_path / "data", "--cluster"]
    processes(tmp_path / "first.log", *words, file).wait_for_line("ready:")
    second, ports = tmp_path / "second.toml", Ports.of_node(free_ports(PORTS_PER_NODE), 1)
    second.write_text(moonraft.cluster_file([ports], 1))
    done, answered = [], []
    thread = threading.Thread(target=lambda: done.append(run(*words, second)))
    thread.start()
    while thread.is_alive():
        for port in (*ports.clients, ports.peer, ports.http):
            with contextlib.suppress(ConnectionError):
                socket.create_connection((HOST, port)).close()
                answered.append(port)
    assert_refused(done[0], tmp_path / "data")
    assert not answered


def test_a_directory_in_use(one_node, tmp_path, processes):
    file, ports = one_node
    words = ["server", "--cluster", file, "--node", 1, "--dir", tmp_path / "data"]
    processes(tmp_path / "first.log", *words).wait_for_line("ready:")
    other_ports = Ports.of_node(free_ports(PORTS_PER_NODE), 1)
    # The same cluster on other ports: only the directory is in the way.
    second = tmp_path / "second.toml"
    second.write_text(moonraft.cluster_file([other_ports], 1))
    done = run("server", "--cluster", second, "--node", 1, "--dir", tmp_path / "data")
    assert_refused(done, tmp_path / "data")
    with Wire(ports.clients[0]) as wire:
        assert wire.ask("PING") == b"+PONG\r\n"


@pytest.mark.parametrize("foreign", ["cluster", "node"])
def test_a_foreign_data_directory(tmp_path, ports, processes, foreign):
    """A directory of another cluster, or of another node of this one, is left alone."""
    mine = tmp_path / "cluster.toml"
    mine.write_text(moonraft.cluster_file(ports, 3))
    data = tmp_path / "data"
    owner = processes(
        tmp_path / "owner.log", "server", "--cluster", mine, "--node", 1, "--dir", data
    )
    # One node of three is no quorum, so it is not ready.
    eventually(lambda: (data / "identity").exists(), what="the node has made the directory its own")
    owner.stop()
    before = tree(data)

    node = 1
    if foreign == "cluster":
        mine.write_text(mine.read_text().replace('name = "scenarios"', 'name = "another"'))
    else:
        node = 2
    done = run("server", "--cluster", mine, "--node", node, "--dir", data)
    assert_refused(done, data)
    assert tree(data) == before


# dev


def test_dev_is_ready_stops_on_ctrl_c_and_keeps_its_data(tmp_path, processes):
    port = dev_ports(3, 3)
    words = ["dev", "--port", port, "--dir", tmp_path / "data"]
    keys = [f"key-{number}" for number in range(100)]

    first = processes(tmp_path / "first.log", *words)
    ready = first.wait_for_line("ready:")
    assert str(port) in first.output().partition("ready:")[2], "it says where to connect"
    assert "redis-cli" in first.output(), f"it says how to connect: {ready}"
    with redis.RedisCluster(host="127.0.0.1", port=port, decode_responses=True) as client:
        for key in keys:
            assert client.set(key, key.upper())
        assert len(client.get_nodes()) == 9
    first.signal(signal.SIGINT)
    assert first.wait() == 0, first.output()

    second = processes(tmp_path / "second.log", *words)
    second.wait_for_line("ready:")
    # Any of the nine addresses will do.
    with redis.RedisCluster(host="127.0.0.1", port=port + 202, decode_responses=True) as client:
        assert [client.get(key) for key in keys] == [key.upper() for key in keys]
    second.signal(signal.SIGTERM)
    assert second.wait() == 0, second.output()


def test_dev_uses_its_default_directory(tmp_path, processes):
    port = dev_ports(1, 1)
    words = ["dev", "--nodes", 1, "--shards", 1, "--port", port]
    process = processes(tmp_path / "dev.log", *words, directory=tmp_path)
    process.wait_for_line("ready:")
    with redis.Redis(port=port) as client:  # one node, one shard: any client will do
        assert client.set("key", "value")
        assert client.execute_command("CLUSTER KEYSLOT", "key") == 12539
    process.signal(signal.SIGINT)
    assert process.wait() == 0
    assert (tmp_path / "moonraft-data").is_dir()
    # One folder a node.
    assert len([path for path in (tmp_path / "moonraft-data").iterdir() if path.is_dir()]) == 1


def traces_at_a_terminal(directory, environment):
    """What `moonraft dev` writes to a terminal until it is ready."""
    port = dev_ports(1, 1)
    words = ["dev", "--nodes", "1", "--shards", "1", "--port", str(port), "--dir", str(directory)]
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [moonraft.binary(), *words], stdout=subprocess.PIPE, stderr=its, env=os.environ | environment
    )
    os.close(its)
    try:
        for line in process.stdout:
            if b"ready:" in line:
                break
        # What was written before it was ready is in the terminal's buffer.
        return os.read(ours, 65536)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        os.close(ours)


def test_traces_are_in_colour_only_at_a_terminal(tmp_path, processes):
    assert b"\x1b[" in traces_at_a_terminal(tmp_path / "a", {"NO_COLOR": ""})
    plain = traces_at_a_terminal(tmp_path / "b", {"NO_COLOR": "1"})
    assert b"leads" in plain and b"\x1b" not in plain
    port = dev_ports(1, 1)
    words = ["dev", "--nodes", 1, "--shards", 1, "--port", port, "--dir", tmp_path / "c"]
    process = processes(tmp_path / "dev.log", *words)
    process.wait_for_line("ready:")
    assert "leads" in process.output() and "\x1b" not in process.output()


def test_dev_survives_kill_9(tmp_path, processes):
    port = dev_ports(1, 1)
    words = ["dev", "--nodes", 1, "--shards", 1, "--port", port, "--dir", tmp_path / "data"]
    first = processes(tmp_path / "first.log", *words)
    first.wait_for_line("ready:")
    with redis.Redis(port=port) as client:
        for number in range(500):
            assert client.rpush("list", number) == number + 1
    first.kill()
    processes(tmp_path / "second.log", *words).wait_for_line("ready:")
    with redis.Redis(port=port, decode_responses=True) as client:
        assert client.lrange("list", 0, -1) == [str(number) for number in range(500)]
        assert client.execute_command("CLUSTER INFO")["cluster_state"] == "ok"


def test_dev_port_in_use_is_one_clear_line(tmp_path):
    port = dev_ports(3, 3)
    with socket.socket() as occupant:
        occupant.bind(("127.0.0.1", port + 101))
        occupant.listen()
        assert_refused(run("dev", "--port", port, "--dir", tmp_path / "data"), port + 101)


@pytest.mark.parametrize(
    "words", [["--nodes", 0], ["--shards", 0], ["--port", 0], ["--nodes", "x"]]
)
def test_dev_with_nonsense(tmp_path, words):
    done = run("dev", "--dir", tmp_path / "data", *words)
    assert done.returncode == 2
    assert done.stderr.strip() and "panicked" not in done.stderr
    assert not (tmp_path / "data").exists()
