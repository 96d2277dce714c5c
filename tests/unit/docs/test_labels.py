"""docs/labels.md is the registry of core/labels.py: it names all of them, and none that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

from coppice.core import labels

REGISTRY = Path(__file__).parents[3] / "docs/labels.md"
NOT_KEYS = {labels.PREFIX, labels.MANAGER}
FINALIZERS = {labels.FINALIZER}
OF_THE_CHART = {"coppice.dev/local"}


def test_the_registry_is_complete_and_true():
    defined = {value for name, value in vars(labels).items() if name.isupper() and value not in NOT_KEYS}
    named = set(re.findall(r"`((?:coppice\.dev|app\.kubernetes\.io)/[a-z-]+)(?:=\w+)?`", REGISTRY.read_text()))
    assert named - OF_THE_CHART == defined
    rows = set(re.findall(r"^\| `([^`]+/[^`]+)` \|", REGISTRY.read_text(), re.MULTILINE))
    assert rows == defined - FINALIZERS
