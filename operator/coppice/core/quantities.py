"""Kubernetes quantities: sizes are compared and bounded exactly, never as floats.

Form: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import math
import re
from decimal import Decimal

_BINARY = {suffix: Decimal(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)}
_DECIMAL = {suffix: Decimal(1000) ** power for power, suffix in enumerate(("k", "M", "G", "T", "P", "E"), start=1)}
_SMALL = {"n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1)}
_SUFFIXES = {**_BINARY, **_DECIMAL, **_SMALL}
_FORM = re.compile(r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))(?:([eE][+-]?[0-9]{1,3})|([KMGTPE]i|[numkMGTPE])?)")


def parse_quantity(text: str | int) -> Decimal:
    """Return the exact value of a quantity such as ``20Gi`` or ``500m``; raise ``ValueError`` for other forms."""
    match = _FORM.fullmatch(str(text))
    if match is None:
        raise ValueError(f"{text!r} is not a quantity: write for example 512Mi, 20Gi or 500m")
    number, exponent, suffix = match.groups()
    return Decimal(number + (exponent or "")) * _SUFFIXES[suffix or ""]


def quantity_bytes(text: str | int) -> int:
    """Return a quantity of bytes, rounded up to a whole one."""
    return math.ceil(parse_quantity(text))


def larger(*sizes: str | None) -> str:
    """Return the largest of some quantities; drivers round up, so that a restore size may exceed what was asked for."""
    given = [size for size in sizes if size]
    return max(given, key=quantity_bytes)


def format_bytes(count: int) -> str:
    """Return a number of bytes as the shortest exact quantity: the largest binary suffix that divides it."""
    for suffix, factor in reversed(_BINARY.items()):
        if count and count % int(factor) == 0:
            return f"{count // int(factor)}{suffix}"
    return str(count)
