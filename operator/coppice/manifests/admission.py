"""Admission policies that tie authors and reviewers to whoever the API server knows them for."""

from __future__ import annotations

from typing import Any


def build_policies() -> list[dict[str, Any]]:
    """Return the policies and their bindings."""
    return []
