"""What a shell offers while somebody types."""

from __future__ import annotations

import pytest
from click.shell_completion import ShellComplete
from tests.fakes.person import Person
from tests.unit.cli.requested import ask

from coppice.cli.main import main


def offered(person: Person, *words: str, begun: str = "") -> list[str]:
    shell = ShellComplete(main, {"obj": person.around}, "coppice", "_COPPICE_COMPLETE")
    return [item.value for item in shell.get_completions(list(words), begun)]


def test_commands_and_options_are_offered(bea):
    assert {"clone", "run", "connect"} <= set(offered(bea))
    assert "--keep-on-failure" in offered(bea, "run", begun="--")


@pytest.mark.parametrize("command", ["reset", "extend", "wake", "delete", "connect", "status"])
def test_clones_are_offered_by_name(bea, command):
    assert offered(bea, command) == ["db"]
    assert offered(bea, command, begun="x") == []


def test_the_namespace_that_is_named_counts(bea):
    assert offered(bea, "status", "-n", "data") == ["previews", "shop", "shop-00001"]
    assert offered(bea, "-n", "data", "status", begun="shop-") == ["shop-00001"]


def test_what_can_be_compared_is_offered(bea):
    ask(bea)
    assert offered(bea, "diff", "-n", "data") == ["request/autumn", "shop"]
    assert offered(bea, "diff", "-n", "data", begun="re") == ["request/autumn"]
    assert offered(bea, "log") == ["db"]


@pytest.mark.parametrize("command", ["review", "resolve", "revert"])
def test_requests_are_offered_by_name(owner, command):
    ask(owner)
    assert offered(owner, command) == ["autumn"]


def test_what_cannot_be_had_is_not_offered(bea):
    bea.cluster.denied.add(("list", "DataClone", "app"))
    assert offered(bea, "reset") == []
