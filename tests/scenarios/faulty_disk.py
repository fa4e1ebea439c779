"""Puts `faulty_disk.c` between the nodes of a cluster and their disks."""

import subprocess
from pathlib import Path


def install(cluster, home):
    """From their next start on, the disks of these nodes obey `command`."""
    library = home / "faulty_disk.so"
    source = Path(__file__).with_name("faulty_disk.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
    for node in cluster.nodes:
        command(node, "")
        node.environment = {
            "LD_PRELOAD": str(library),
            "FAULTY_DISK": str(_word_file(node)),
            "FAULTY_DISK_ROOT": str(node.directory),
        }


def command(node, word):
    """Tells a node's disk what to do: see `faulty_disk.c`."""
    _word_file(node).write_text(word)


def _word_file(node):
    return node.file.parent / f"disk-{node.number}"
