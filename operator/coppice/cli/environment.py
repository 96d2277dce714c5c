"""What a program on this machine must have in its environment to work on a clone through a tunnel. Pure.

Three ways to find the same database: ``DATABASE_URL``; the variables that the engine's own programs and drivers read;
and the keys of the binding Secret, in upper case and behind ``COPPICE_``. Without the prefix they would be ``HOST``,
``PORT`` and ``USERNAME``, which mean the machine, a web server's own port and the person to other programs.

What a program inherits and could lead it to another database is taken away: the command that was to run on a copy must
not find production.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from coppice.api.v1alpha1 import BINDING_KEYS, PLACEHOLDERS
from coppice.api.v1alpha1.dataclone import KEY_PATTERN, TEMPLATE_PATTERN

PREFIX: Final = "COPPICE_"
URL: Final = "DATABASE_URL"

_NATIVE: Final[Mapping[str, Mapping[str, str]]] = {
    "postgresql": {
        "PGHOST": "host",
        "PGPORT": "port",
        "PGUSER": "username",
        "PGPASSWORD": "password",
        "PGDATABASE": "database",
    },
    "mysql": {
        # MySQL's own programs know the first three; the others are what applications and frameworks read.
        "MYSQL_HOST": "host",
        "MYSQL_TCP_PORT": "port",
        "MYSQL_PWD": "password",
        "MYSQL_PORT": "port",
        "MYSQL_USER": "username",
        "MYSQL_PASSWORD": "password",
        "MYSQL_DATABASE": "database",
    },
}
"""By the ``type`` of the binding: variables, and the keys they have the value of."""

_MISLEADING: Final[Mapping[str, re.Pattern[str]]] = {
    "postgresql": re.compile(
        r"PG(HOST|HOSTADDR|PORT|DATABASE|USER|PASSWORD|PASSFILE|SERVICE|SERVICEFILE|OPTIONS|REQUIRE\w*|SSL\w*|GSS\w*"
        r"|KRBSRVNAME|CHANNELBINDING|TARGETSESSIONATTRS|LOADBALANCEHOSTS)"
    ),
    "mysql": re.compile(r"MYSQL_\w+"),
}
"""Variables of the same programs that choose a server, a login, or a way to it that the tunnel does not have: those of
libpq (https://www.postgresql.org/docs/current/libpq-envars.html), and of MySQL's programs."""


class WrongTemplateError(ValueError):
    """A variable was asked for in a form that cannot be filled in; the message says which one can."""


def through_tunnel(binding: Mapping[str, str], templates: Mapping[str, str], *, host: str, port: int) -> dict[str, str]:
    """Return the values of a binding Secret as they are from the near end of a tunnel.

    ``templates`` are the clone's further keys: they may hold the address as well, and are filled in anew.
    """
    local = {key: binding[key] for key in BINDING_KEYS if key in binding} | {"host": host, "port": str(port)}
    if "uri" in binding:
        local["uri"] = _redirected(binding["uri"], host, port)
    return local | {key: template.format_map(local) for key, template in templates.items()}


def _redirected(uri: str, host: str, port: int) -> str:
    parts = urlsplit(uri)
    login, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{login}{at}{host}:{port}"))


def without_password(values: Mapping[str, str]) -> str:
    """Return the URI of a binding as it may be shown."""
    parts = urlsplit(values["uri"])
    return urlunsplit(parts._replace(netloc=f"{values['username']}@{values['host']}:{values['port']}"))


def variables(values: Mapping[str, str], asked: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for a program: the standard ones, the clone's further keys, and those ``asked`` for."""
    native = _NATIVE.get(values.get("type", ""), {})
    return {
        **{f"{PREFIX}{key.upper()}": values[key] for key in BINDING_KEYS if key in values},
        **({URL: values["uri"]} if "uri" in values else {}),
        **{name: values[key] for name, key in native.items()},
        **{key: value for key, value in values.items() if key not in BINDING_KEYS},
        **{name: template.format_map(values) for name, template in asked.items()},
    }


def around(inherited: Mapping[str, str], binding_type: str) -> dict[str, str]:
    """Return what a program may inherit: nothing that leads it to another database."""
    misleading = _MISLEADING.get(binding_type)
    return {name: value for name, value in inherited.items() if misleading is None or not misleading.fullmatch(name)}


def read_templates(texts: tuple[str, ...]) -> dict[str, str]:
    """Return variables asked for as ``NAME=TEMPLATE``, with the placeholders of ``binding.keys``."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, template = text.partition("=")
        if not equals or not re.match(KEY_PATTERN, name) or not re.match(TEMPLATE_PATTERN, template):
            known = " ".join(f"{{{key}}}" for key in PLACEHOLDERS)
            raise WrongTemplateError(
                f"{text!r} is not NAME=TEMPLATE, for example DB_HOST={{host}}; the placeholders are {known}, and a "
                "brace is written twice"
            )
        found[name] = template
    return found
