"""Installed engines are found by name, and one that is broken stops the start."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from coppice.engines.base import Preparation
from coppice.engines.dolt import DoltEngine
from coppice.engines.registry import GROUP, PluginError, VersionsError, engines


class Other(DoltEngine):
    name = "other"


def _plugin(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, GROUP)


def test_the_built_in_engines_are_there() -> None:
    found = engines([])
    assert set(found) == {"dolt", "postgresql", "terminusdb"}
    assert all(engine.name == name for name, engine in found.items())


def test_an_administrator_allows_any_version_of_an_engine_that_refuses_some() -> None:
    inputs = Preparation(marker="uid", database="shop")
    for allowed, any_version in ((["terminusdb"], "yes"), ([], "")):
        workload = engines([], any_version=allowed)["terminusdb"].preparation(inputs)
        assert workload.environment["COPPICE_ANY_VERSION"] == any_version


def test_to_allow_any_version_of_an_engine_that_refuses_none_is_a_mistake() -> None:
    with pytest.raises(VersionsError, match=r"dolt refuses no version.*terminusdb"):
        engines([], any_version=["terminusdb", "dolt"])


def test_an_installed_engine_is_found_under_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EntryPoint, "load", lambda _: Other)
    assert engines([_plugin("other", "somewhere:Other")])["other"].name == "other"


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        (_plugin("broken", "no_such_module:Engine"), "broken .*no_such_module.*ModuleNotFoundError"),
        (_plugin("broken", "json:Engine"), "broken .*AttributeError"),
        (_plugin("broken", "json:loads"), "broken .*TypeError"),
        (_plugin("dolt", "coppice.engines.dolt:DoltEngine"), "dolt .* name of another"),
        (_plugin("mine", "coppice.engines.dolt:DoltEngine"), "mine .* calls itself dolt"),
    ],
)
def test_a_plugin_that_cannot_be_used_fails_by_name(plugin: EntryPoint, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        engines([plugin])
