"""For all tests."""

import asyncio

from hypothesis import HealthCheck, settings

# A busy machine is no defect of what is tested.
settings.register_profile("coppice", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("coppice")


def pytest_configure() -> None:
    # pytest-asyncio asks for the current event loop to put it back later. Without this, Python makes one on the spot,
    # which nobody closes: a ResourceWarning in whichever test happens to run when it is collected.
    asyncio.set_event_loop(None)
