"""Does nothing, so that others can be started beside it."""

from __future__ import annotations

import signal

signal.pause()
