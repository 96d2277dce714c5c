"""JSON whose numbers keep all their digits: a decimal that became a binary fraction would be another one when it is
written back.
"""

from __future__ import annotations

import json
import re
import secrets
from decimal import Decimal
from typing import Any


def decoded(read: bytes) -> Any:
    """Return what JSON says; a number with a fraction or an exponent is a Decimal."""
    return json.loads(read, parse_float=Decimal)


def encoded(value: Any) -> bytes:
    """Return JSON, with each Decimal as it is."""
    mark = secrets.token_hex(16)  # nobody can have written a text that is taken for a number
    text = json.dumps(value, default=lambda number: f"{mark}{_number(number)}{mark}", separators=(",", ":"))
    return re.sub(f'"{mark}(.*?){mark}"', r"\1", text).encode()


def canonical(value: Any) -> Any:
    """Return what is the same for equal values, whatever the order of their keys and however their numbers are written,
    and another for a text that looks like a number.
    """
    match value:
        case bool() | None | str():
            return value
        case int() | Decimal():
            return ["#", _plain(Decimal(value))]
        case dict():
            return {name: canonical(each) for name, each in sorted(value.items())}
        case _:
            return [[], *(canonical(each) for each in value)]


def _plain(number: Decimal) -> str:
    """Return a number's digits without zeros that say nothing, and its power of ten: an exponent may be enormous."""
    sign, digits, exponent = number.as_tuple()
    text = "".join(map(str, digits)).lstrip("0")
    kept = text.rstrip("0")
    return f"{'-' if sign else ''}{kept}e{int(exponent) + len(text) - len(kept)}" if kept else "0"


def _number(value: Any) -> str:
    if not isinstance(value, Decimal):
        raise TypeError(f"JSON has no {type(value).__name__}")
    return str(value)
