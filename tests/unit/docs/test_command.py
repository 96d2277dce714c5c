"""docs/command.md names every command and every option, and none that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from coppice.cli import child, problems
from coppice.cli.main import _PEOPLE, main
from coppice.cli.session import INTERRUPTED

PAGE = (Path(__file__).parents[3] / "docs/command.md").read_text()
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
FOREIGN = {"--no-defaults"}
"""Options of other programs."""


def commands() -> dict[str, click.Command]:
    context = click.Context(main)
    found = {name: main.get_command(context, name) for name in main.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}


def options(command: click.Command) -> set[str]:
    found = [param for param in command.params if isinstance(param, click.Option)]
    return {name for param in found for name in (*param.opts, *param.secondary_opts) if name.startswith("--")}


def named() -> str:
    return " ".join(CODE.findall(PAGE))


@pytest.mark.parametrize("name", commands())
def test_every_command_is_documented(name):
    assert re.search(rf"\bcoppice {name}\b", named())


@pytest.mark.parametrize("name", _PEOPLE)
def test_every_option_is_documented(name):
    known = set(re.findall(r"--[a-z][a-z-]*", named()))
    assert options(commands()[name]) - known == set()


def test_no_option_is_documented_that_does_not_exist():
    known = {option for command in commands().values() for option in options(command)}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", named())) - known == FOREIGN


def test_every_command_that_is_named_exists():
    whole, first = commands().keys(), {name.partition(" ")[0] for name in commands()}
    named = set(re.findall(r"`(?:kubectl )?coppice ([a-z]+)(?: ([a-z]+))?", PAGE))
    assert {one for one, _ in named} <= first
    assert {f"{one} {other}".strip() for one, other in named if one not in whole} <= whole


def test_the_options_for_all_are_those_of_every_command():
    for name in _PEOPLE:
        assert options(main) - {"--version"} <= options(commands()[name])


def test_every_exit_code_is_documented():
    codes = {problems.REFUSED, problems.IN_VAIN, INTERRUPTED, child.NO_DATA, child.NOT_RUNNABLE, child.NOT_FOUND}
    section = PAGE.split("## Exit codes")[1].split("\n## ")[0]
    rows = " ".join(re.findall(r"^\| ([\d, ]+) \|", section, re.MULTILINE))
    assert {int(code) for code in re.findall(r"\d+", rows)} == codes | {0, 2}


@pytest.mark.parametrize("name", _PEOPLE)
def test_the_list_and_the_command_agree_on_what_it_does(name):
    """The list is shown without importing the commands."""
    assert commands()[name].help
    assert _PEOPLE[name][2].endswith(".")
