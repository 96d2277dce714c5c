"""What is shown while a command waits: one line in place on a terminal, else a line whenever another step is waited for."""

from __future__ import annotations

import io
from datetime import UTC, datetime

from rich.console import Console

from coppice.cli.session import Session, Surroundings
from coppice.cli.waiting import _progress


def session(console: Console) -> Session:
    around = Surroundings(now=lambda: datetime(2026, 3, 2, tzinfo=UTC))
    return Session(None, "app", around, as_json=False, out=console, err=console)  # type: ignore[arg-type]


def test_on_a_terminal_it_is_one_line_and_nothing_in_it_is_markup():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=60, highlight=False, markup=False)
    with _progress(session(console)) as tell:
        tell(f"[red]no color[/red] {'x' * 500}", "waits for ")
    line = screen.getvalue().partition("waits for ")[2].splitlines()[0]
    assert line.startswith("[red]no color[/red] xxx")
    assert line.endswith("…")


def test_elsewhere_a_step_is_told_once():
    text = io.StringIO()
    with _progress(session(Console(file=text, force_terminal=False, width=200))) as tell:
        for message in (
            "the operator",
            "VolumeReady: Copying: 1 s",
            "VolumeReady: Copying: 2 s",
            "EngineReady: Starting",
        ):
            tell(message, "waits for ")
    assert text.getvalue().splitlines() == [
        "waits for the operator",
        "waits for VolumeReady: Copying: 1 s",
        "waits for EngineReady: Starting",
    ]
