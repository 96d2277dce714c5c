"""For all tests."""

import asyncio
import gc
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no defect of what is tested.
settings.register_profile("coppice", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("coppice")

_HERE = Path(__file__).parent

# Worlds of many small objects, nearly all of which go without the collector: it took a fifth of the time.
gc.set_threshold(200_000, 50, 100)


def pytest_configure() -> None:
    # pytest-asyncio asks for the current event loop to put it back later. Without this, Python makes one on the spot,
    # which nobody closes: a ResourceWarning in whichever test happens to run when it is collected.
    asyncio.set_event_loop(None)
    # A shell that runs us in the background, without a terminal, has us ignore it, and so would all programs under test.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is about a real API server: the stage that has one leaves out what every unit test run has looked at."""
    for item in items:
        if "api_server" in getattr(item, "fixturenames", ()) or item.path.is_relative_to(_HERE / "cel"):
            item.add_marker(pytest.mark.apiserver)
