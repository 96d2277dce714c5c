"""For all tests."""

import asyncio


def pytest_configure() -> None:
    # pytest-asyncio asks for the current event loop to put it back later. Without this, Python makes one on the spot,
    # which nobody closes: a ResourceWarning in whichever test happens to run when it is collected.
    asyncio.set_event_loop(None)
