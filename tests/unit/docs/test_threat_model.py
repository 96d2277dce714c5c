"""Every test that the threat model calls as a witness exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MODEL = ROOT / "docs/threat-model.md"
WITNESSES = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", MODEL.read_text())))


@pytest.mark.parametrize(("file", "name"), WITNESSES, ids="::".join)
def test_the_witness_exists(file, name):
    tree = ast.parse((ROOT / file).read_text())
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert name in functions


def test_every_rule_has_a_witness_or_says_that_it_has_none():
    table = MODEL.read_text().split("## Rules and their tests")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| rule")]
    assert rows
    assert [row for row in rows if "::test_" not in row and "no test yet" not in row] == []
