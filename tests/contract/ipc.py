"""What a killed server leaves in the machine's shared memory: in a Pod it goes with the Pod, here it has to go with the run.

PostgreSQL keeps a System V segment and POSIX segments that only an orderly stop, or a start on the same volume, removes. The tests kill many
servers on volumes that never start again, and at SHMMNI (4096) segments no server of this machine starts any more.
"""

from __future__ import annotations

import ctypes
import os
import subprocess

CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
"""linux/sched.h; `os.unshare` came with Python 3.12."""


def of_its_own() -> None:
    """Give this process, and what it starts from now on, shared memory of its own, where it is allowed to (root is).

    It goes with the last process in it, however that ends.
    """
    if os.geteuid() != 0 or ctypes.CDLL(None).unshare(CLONE_NEWNS | CLONE_NEWIPC) != 0:
        return
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/dev/shm"], check=True)
