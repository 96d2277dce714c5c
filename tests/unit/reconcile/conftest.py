"""The stage of every story: a world, an operator in it, and a few words to write objects with."""

from __future__ import annotations

import pytest
from tests.fakes.story import Story


@pytest.fixture
def story() -> Story:
    return Story()
