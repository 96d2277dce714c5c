"""Whether a cluster's network enforces NetworkPolicies: no API tells, so a closed door is knocked at."""

from __future__ import annotations

import asyncio
from typing import Final

KNOCK_SECONDS: Final = 1.0
"""A packet that reaches a Pod is answered within milliseconds; one that a policy drops never is."""


async def is_reached(host: str, port: int) -> bool | None:
    """Return whether a packet to a port reaches a host, be it to be refused there; None if nobody can tell.

    A network that enforces policies drops it (NetworkPolicies have no way to refuse), and nothing comes back.
    """
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), KNOCK_SECONDS)
    except TimeoutError:
        return False
    except ConnectionRefusedError:
        return True
    except OSError:
        return None
    writer.close()
    return True
