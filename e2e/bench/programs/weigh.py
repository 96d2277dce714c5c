"""Runs a program and tells, as JSON, how long it took, how many lines it printed, and how much memory it had at most.

A program of its own: what a process has had before it became another program counts as that one's, and this one is
smaller than all that it is used for.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

started = time.monotonic()
with subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
    assert process.stdout is not None
    lines = sum(1 for _ in process.stdout)
if process.returncode != 0:
    sys.exit(process.returncode)
most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
print(json.dumps({"seconds": time.monotonic() - started, "lines": lines, "bytes": most}))
