"""What a stage of tests needs and a machine may lack."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

REQUIRED = "COPPICE_REQUIRED"
"""Set by the Makefile for the stages that are about something real: without it they would pass by testing nothing."""


def lacks(what: str) -> NoReturn:
    """Skip a test, or fail it where its stage was asked for."""
    if os.environ.get(REQUIRED):
        pytest.fail(f"{what} ({REQUIRED} is set: this stage is not skipped)", pytrace=False)
    pytest.skip(what)
