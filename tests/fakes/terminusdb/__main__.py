"""The protocol double of TerminusDB as a program: ``terminusdb serve``, and the commands for a store that no server has open.

It is written from the documented API and from what was seen of the real one (``facts.json``); it proves how Coppice speaks, not how TerminusDB answers.
"""

# ruff: noqa: T201 - a program speaks by printing
from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from databases import ADMIN, SYSTEM, Databases, identified, place
from layers import Storage, StorageError
from refusals import RefusedError
from serving import Server

VERSION = os.environ.get("TERMINUSDB_DOUBLE_VERSION", "12.0.6")


def main(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        print(f"TerminusDB v{VERSION} (double)\nterminusdb-store v0.21.7")
        return 0
    options = dict(_option(entry) for entry in arguments if entry.startswith("-"))
    words = [entry for entry in arguments if not entry.startswith("-")]
    databases = Databases(Storage(Path(os.environ["TERMINUSDB_SERVER_DB_PATH"])))
    try:
        return _run(databases, words, options)
    except RefusedError as error:
        print(
            f"Error: {error}\n{json.dumps({'api:status': 'api:failure', 'api:error': {'@type': error.kind}})}",
            file=sys.stderr,
        )
        return 1
    except StorageError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1


def _run(databases: Databases, words: list[str], options: dict[str, str]) -> int:  # noqa: PLR0912 - one for each command
    if words == ["store", "init"]:
        if databases.storage.exists and "force" not in options:
            print("Error: a store already exists", file=sys.stderr)
            return 1
        databases.initialise(options.get("key", "root"))
        print("Successfully initialised database.")
        return 0
    if not databases.storage.exists:
        print("CRITICAL ERROR: Server can't be started because the configuration is missing", file=sys.stderr)
        return 1
    databases.storage.label(SYSTEM)
    if words == ["serve"]:
        return _serve(databases)
    match words:
        case ["db", "create", path]:
            databases.create(path, options.get("label", path))
        case ["db", "list"]:
            _show([{"path": name} for name in databases.names()])
        case ["branch", "create", path]:
            databases.create_branch(place(path), place(options["origin"]))
        case ["doc", "insert", path]:
            _insert(databases, path, options)
        case ["doc", "get", path]:
            documents = databases.graph(place(path), options.get("graph_type", "instance")).items()
            wanted = [
                {"@id": key, **value}
                for key, value in documents
                if options.get("type", value.get("@type")) == value.get("@type")
            ]
            _show(wanted[: int(options["count"])] if "count" in options else wanted)
        case ["user", "get"]:
            print(json.dumps(databases.users()))
        case ["user", "delete", name]:
            databases.delete_user(name if "id" in options else f"User/{name}")
        case ["user", "password", name]:
            databases.set_user(name, options["password"], new=False)
        case ["remote", "remove", path, name]:
            databases.change_meta(path, {}, (name,))
        case _:
            print(f"terminusdb: no such command: {' '.join(words)}", file=sys.stderr)
            return 1
    return 0


def _insert(databases: Databases, path: str, options: dict[str, str]) -> None:
    at, graph = place(path), options.get("graph_type", "instance")
    try:
        given = _documents(sys.stdin.read())
    except ValueError:
        raise RefusedError(400, "", "syntax error: json") from None
    before = databases.graph(at, graph)
    documents = identified(given, graph, databases.graph(at, "schema"))
    replacing = "full_replace" in options
    if taken := [name for name in documents if name in before and not replacing]:
        raise RefusedError(400, "api:DocumentIdAlreadyExists", f"Tried to insert a new document with id {taken[0]}")
    drop = tuple(name for name in before if name not in documents) if replacing else ()
    info = {
        "author": options.get("author", "admin"),
        "message": options.get("message", "cli: document insert"),
        "user": ADMIN,
    }
    databases.write(at, graph, documents, drop, info)


def _documents(text: str) -> list[Any]:
    """Return what stands one after another: documents, or lists of them."""
    decoder, found, start = json.JSONDecoder(), [], 0
    text = text.strip()
    while start < len(text):
        document, start = decoder.raw_decode(text, start)
        found.extend(document if isinstance(document, list) else [document])
        while start < len(text) and text[start].isspace():
            start += 1
    return found


def _serve(databases: Databases) -> int:
    server = Server(int(os.environ.get("TERMINUSDB_SERVER_PORT", "6363")), databases, VERSION)

    def end(*_: Any) -> None:
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    server.serve_forever()
    return 0


def _show(content: Any) -> None:
    """Print as the real one does, over several lines."""
    print(json.dumps(content, indent=1))


def _option(entry: str) -> tuple[str, str]:
    name, _, value = entry.lstrip("-").partition("=")
    return name.replace("-", "_"), value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
