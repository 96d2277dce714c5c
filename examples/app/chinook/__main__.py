"""Serves the shop on port 8080."""

from __future__ import annotations

import os
import signal
import sys

from waitress import serve

from .catalog import Catalog
from .settings import SettingsError, database_from
from .web import build_app


def main() -> None:
    """Serve until told to stop."""
    # the first process of a container gets no default action for signals
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    try:
        database = database_from(os.environ)
    except SettingsError as error:
        sys.exit(str(error))
    serve(build_app(Catalog(database)), listen="*:8080", threads=8, ident=None)


main()
