"""What is accepted and what is refused, for every constraint: tables of examples, and how to put them into objects.

``CASES`` has for every constraint of ``constraints()`` the objects to send. Bounds, enumerations and required fields follow
from the schema; for patterns and rules the tables below say what to try.
"""

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.cel.constraints import Constraint, constraints

from coppice.api.v1alpha1 import API_VERSION, common, dataclone, datastore, pullrequest

ABSENT = object()

STORAGE = {"size": "20Gi", "storageClassName": "fast", "snapshotClassName": "fast"}
MANAGED = {
    "version": "1.83",
    "database": "shop",
    "storage": STORAGE,
    "resources": {"memory": "1Gi", "cpu": "500m"},
    "load": {"configMap": {"name": "shop-sql"}},
    "commitPolicy": "Explicit",
    "tls": {"secretName": "shop-tls"},
}
STORE = {
    "engine": "dolt",
    "deletionPolicy": "Retain",
    "managed": MANAGED,
    "snapshots": {"schedule": "*/30 * * * *", "keep": {"last": 3, "hourly": 24, "daily": 7}},
    "mask": {"jobTemplate": "shop-mask"},
    "clones": {
        "profiles": {"default": {"memory": "512Mi", "cpu": "500m"}},
        "nodeSelector": {"pool": "preview"},
        "ownBytes": "5Gi",
    },
}
ADOPTED = {
    "claimName": "data-pg-0",
    "service": "pg",
    "credentialsSecret": "pg-coppice",
    "writer": {"secretName": "pg-coppice-writer"},
    "database": "shop",
    "snapshotClassName": "fast",
    "directory": "pgdata",
    "userID": 26,
}
MIRROR = {
    "from": {"secretName": "prod-read"},
    "method": "LogicalDump",
    "schedule": "0 * * * *",
    "version": "15",
    "storage": STORAGE,
    "resources": {"memory": "1Gi", "cpu": "500m"},
    "jobs": 4,
}
GRANT = {
    "store": "shop",
    "to": {"namespaces": ["shop-pr-42"]},
    "verbs": ["Clone"],
    "data": "Raw",
    "maxLease": "7d",
    "maxClones": {"perNamespace": 5, "total": 40},
    "repositories": ["github.com/acme/shop"],
    "forks": True,
}
SELECTOR = {
    "matchLabels": {"coppice.dev/previews": "true"},
    "matchExpressions": [{"key": "team", "operator": "In", "values": ["shop"]}],
}
POINTS = [
    {"branch": "main"},
    {"tag": "v1"},
    {"commit": "0123456789abcdefghijklmnopqrstuv"},
    {"snapshot": "shop-1"},
    {"time": "2026-05-01T12:00:00Z"},
    {"migration": "42"},
]
BRANCH = {
    "store": {"name": "shop", "namespace": "data"},
    "branchName": "feature/autumn",
    "history": "Squashed",
    "deletionPolicy": "Delete",
}
CLONE_STORE = {"store": {"name": "shop", "namespace": "data"}}
CLONE = {
    "from": {**CLONE_STORE, "branch": "main", "maxAge": "1h"},
    "profile": "large",
    "binding": {"secretName": "db", "serviceName": "postgres", "keys": {"DATABASE_URL": "{uri}"}},
    "lease": {"idle": "2h", "max": "3d"},
    "refresh": "Never",
    "revision": "abc",
    "onRevision": "Keep",
    "onClose": "KeepChanges",
    "migrations": {"jobTemplate": "shop-migrate", "versions": ["1", "2"]},
    "power": "Auto",
    "durability": "Durable",
    "commitPolicy": "Explicit",
    "tls": {"secretName": "db-tls"},
    "pullRequest": {
        "provider": "gitlab",
        "host": "gitlab.example.com",
        "repository": "acme/web/shop",
        "number": 42,
        "appURL": "https://pr-42.shop.example.com/",
    },
}
COMMIT = {
    "store": {"name": "shop"},
    "from": {"clone": {"name": "db", "namespace": "shop-pr-42"}},
    "commit": {"branch": "feature", "parent": "shop-00001"},
}
PROTECTION = {
    "branches": ["main", "release/*"],
    "approvals": 2,
    "reviewers": {"users": ["rosa"], "groups": ["data-owners"]},
    "checks": [{"name": "prices", "sql": "SELECT 1 FROM track WHERE price < 0"}],
}
REQUEST = {
    "title": "Prices of autumn",
    "description": "As agreed.",
    "store": {"name": "shop"},
    "author": "eli",
    "from": {"branch": "autumn"},
    "into": {"branch": "live"},
    "publish": "Branch",
    "merge": "Manual",
    "notBefore": "2026-05-01T12:00:00Z",
    "resolutions": [{"conflict": "0123456789abcdef", "take": "Source"}],
    "preview": False,
}
REVIEW = {
    "request": "prices",
    "reviewer": "rosa",
    "groups": ["data-owners"],
    "verdict": "Approve",
    "patch": {
        "proposal": "0123456789abcdef0123456789abcdef",
        "source": "0123456789abcdefghijklmnopqrstuv",
        "resolutions": "0123456789abcdef",
        "digest": "0123abcd",
    },
    "comment": "Fine.",
}
SPECS: dict[str, list[dict[str, Any]]] = {
    "DataStore": [
        STORE,
        {**STORE, "protection": [PROTECTION]},
        {**STORE, "protection": [{**PROTECTION, "checks": [{"name": "prices", "jobTemplate": "shop-prices"}]}]},
        *(
            {**STORE, "managed": {**MANAGED, "load": load}}
            for load in ({"claim": {"name": "dump"}}, {"jobTemplate": "shop-load"})
        ),
        *(
            {**{key: value for key, value in STORE.items() if key != "managed"}, **other}
            for other in ({"adopted": ADOPTED}, {"mirror": MIRROR})
        ),
    ],
    "DataGrant": [GRANT, {**GRANT, "to": {"namespaceSelector": SELECTOR}}],
    "DataSnapshot": [{"store": {"name": "shop"}}, COMMIT],
    "DataBranch": [{**BRANCH, "from": point} for point in POINTS],
    "DataClone": [CLONE, *({**CLONE, "from": {**CLONE_STORE, **point}} for point in POINTS[1:])],
    "DataChangeRequest": [
        REQUEST,
        {**REQUEST, "from": {"clone": {"name": "db", "namespace": "shop-pr-42"}}},
        {**REQUEST, "from": {"revertOf": "prices"}},
        {**REQUEST, "resolutions": [{"row": "0123456789abcdef", "take": "Target"}]},
        {**REQUEST, "resolutions": [{"table": "track", "take": "Target"}]},
    ],
    "DataReview": [REVIEW],
}
"""Valid specs of each kind; together they have every field. The first is the one that examples are put into."""


@dataclass(frozen=True)
class Strings:
    """Strings that match a pattern, that do not, and one of any length that does."""

    good: tuple[str, ...]
    bad: tuple[str, ...]
    of_length: Callable[[int], str]


def letters(length: int) -> str:
    return "a" * length


def digits(length: int) -> str:
    return "1" * length


def cron(length: int) -> str:
    minutes = length - len(" * * * *")
    return f"{'0' if minutes % 2 else '00'}{',0' * ((minutes - 1) // 2)} * * * *"


def duration(length: int) -> str:
    return {2: "1s", 24: "9999d99999h999999m99999s", 25: "9999d99999h999999m999999s"}.get(length, "1")


def quantity(length: int) -> str:
    return "1" * (length - 12) + ".111111111Gi"


def field_pattern(kind: str, *path: str) -> str:
    """The pattern of a field that has one of its own."""
    found = next(
        c for c in constraints() if c.kind == kind and c.path == f".{'.'.join(path)}" and c.keyword == "pattern"
    )
    return found.argument


DURATIONS = Strings(
    ("90s", "1h30m", "3d", "1d12h", "1d1h1m1s"),
    ("10", "0s", "1w", "1h1d", "-1h", "1.5h", "never", "3d ", "010h"),
    duration,
)
CRONS = Strings(
    ("* * * * *", "*/30 * * * *", "0 3 * * mon-fri", "5,35 0-6/2 1 jan,jul 0", "59 23 31 12 7"),
    ("* * * *  *", "60 * * * *", "0 24 * * *", "0 0 0 * *", "0 0 * 13 *", "0 0 * * 8", "*/0 * * * *", "0 0 * * * *", "@hourly__"),
    cron,
)  # fmt: skip
STRINGS = {
    common.LABEL_PATTERN: Strings(("a", "0", "shop-2"), ("Shop", "a.b", "-a", "a-", "a_b", "a\n"), letters),
    common.SERVICE_NAME_PATTERN: Strings(("a", "shop-2"), ("0", "2-shop", "Shop", "a.b", "a-"), letters),
    common.SUBDOMAIN_PATTERN: Strings(("a", "0.a", "a-b.c-d"), ("A", "a..b", ".a", "a.", "a_b", "-a"), letters),
    common.LABEL_VALUE_PATTERN: Strings(("", "A", "a_b.c-d"), ("-a", "a-", "a b", "ä"), letters),
    common.LABEL_KEY_PATTERN: Strings(
        ("pool", "kubernetes.io/arch", "A_b.c", "a/" + "b" * 63), ("/a", "a/", "A/b", "a b", "b" * 64), lambda n: "a" * (n - 2) + "/b" if n > 2 else "a" * n
    ),
    common.ENGINE_PATTERN: Strings(("dolt", "my-engine2"), ("Dolt", "2dolt", "a--b", "a-", "a_b"), letters),
    common.DATABASE_PATTERN: Strings(("shop", "_s", "My-shop_2"), ("2shop", "a.b", "a b", "-a", "a`b"), letters),
    common.REF_PATTERN: Strings(
        ("main", "feature/x", "ünï", "a'b"), ("a b", "a~1", "a^", "a:b", "a?", "a*", "a[b", "a\\b", "a@b", "a{b}", "a\tb"), letters
    ),
    common.NEW_BRANCH_PATTERN: Strings(
        ("main", "feature/autumn", "v1.2_x-y", "_"), ("/a", "a/", "a//b", "a..b", ".a", "a.", "-a", "a/-b", "a b", "a@b"), letters
    ),
    common.COMMIT_PATTERN: Strings(("deadbeef", "0123ABCD"), ("main~1", "HEAD^1", "a b c", "a;b;"), letters),
    common.MIGRATION_PATTERN: Strings(
        ("1", "1.10_2", "20260301120000", "shop.0042_price", "add column title", "ünï"), (" 1", "1 ", "a\nb", "a\tb", "\x7f"), letters
    ),
    common.DURATION_PATTERN: DURATIONS,
    common.DURATION_OR_NEVER_PATTERN: Strings((*DURATIONS.good, "Never"), (*DURATIONS.bad, "Never1s"), duration),
    common.QUANTITY_PATTERN: Strings(("1", "1.5Gi", "500m", "20G"), ("-1", "1Zi", "1e3", "1 Gi", "Gi", "1.", "lots"), quantity),
    common.CRON_PATTERN: CRONS,
    dataclone.REFRESH_PATTERN: Strings(
        (*CRONS.good, "Never", "OnHeadChange"), (*CRONS.bad, "never", "Never * * * *", "OnHeadChange "), cron
    ),
    dataclone.TEMPLATE_PATTERN: Strings(
        ("", "{uri}", "mysql://{username}:{password}@{host}:{port}/{database}?tls=true", "{{literal}}", "{{{host}}}"),
        ("{pasword}", "{", "}", "{uri", "{}", "{{uri}", "{type}"),
        letters,
    ),
    field_pattern("DataStore", "spec", "adopted", "directory"): Strings(
        ("pgdata", "a/b.c/d-e_f", ".data", "15/main"), ("/a", "a/", "a//b", "..", "a/../b", ".", "a b", "a/./b"), letters
    ),
    datastore.BRANCH_GLOB_PATTERN: Strings(
        ("release", "releases/*", "*", "*/x", "v1.*"), ("/a", "a/", "a//b", "a..b", ".a", "a.", "-a", "a b", "a?", "a[b]"), letters
    ),
    field_pattern("DataChangeRequest", "spec", "title"): Strings(
        ("Prices", "Prices of autumn, 5 % off", "Überblick"), ("a\nb", "a\tb", "a\x7f"), letters
    ),
    field_pattern("DataChangeRequest", "spec", "resolutions[]", "conflict"): Strings(
        ("0123456789abcdef",), ("0123456789ABCDEF", "0123456789abcdeg", "track,id 7, name"), letters
    ),
    pullrequest.REPOSITORY_PATTERN: Strings(
        ("acme/shop", "a/.github", "Acme/web_2/shop.js-x"),
        ("acme", "/shop", "acme/", "a//b", "a/..", "./a", "a/../b", "a b/c", "a/b?c", "a/b#1", "a/%2e%2e", "https://a/b"),
        lambda n: "a/" + "a" * (n - 2) if n > 2 else "a" * n,
    ),
    pullrequest.GRANTED_REPOSITORY_PATTERN: Strings(
        ("github.com/acme/shop", "gitlab.example.com/acme/web/Shop"),
        ("acme/shop", "GitHub.com/acme/shop", "https://github.com/acme/shop", "github.com/acme/..", "github.com/acme/*", "github.com/acme/shop/"),
        lambda n: "a/a/" + "a" * (n - 4) if n > 4 else "a" * n,
    ),
    pullrequest.APP_URL_PATTERN: Strings(
        ("https://pr-42.shop.example.com", "http://10.0.0.1:8080/a?b=c&d#e"),
        ("javascript:alert(1)", "//a", "https://", "https://a b", "https://a)b", "https://a[b", "https://a\nb", 'https://a"b', "https://a<b", "ftp://a"),
        lambda n: "https://" + "a" * (n - 8),
    ),
    field_pattern("DataStore", "spec", "managed", "version"): Strings(
        ("1", "1.83", "1.83.2", "17.2-beta.1"), ("v1", "1.", "1.2.3.4.5", "latest", "1.83 ", "1-"), digits
    ),
}  # fmt: skip


def names(prefix: str) -> Callable[[int], list[str]]:
    return lambda count: [f"{prefix}{number}" for number in range(count)]


COLLECTIONS: dict[str, Callable[[int], Any]] = {
    ".spec.to.namespaces": names("ns"),
    ".spec.verbs": lambda count: ["Clone", "Branch", "Propose", "Clone"][:count],
    ".spec.protection": lambda count: [{"branches": [name]} for name in names("b")(count)],
    ".spec.protection[].branches": names("b"),
    ".spec.protection[].reviewers.users": names("user"),
    ".spec.protection[].reviewers.groups": names("group"),
    ".spec.protection[].checks": lambda count: [{"name": name, "sql": "SELECT 1"} for name in names("c")(count)],
    ".spec.resolutions": lambda count: [{"table": table, "take": "Source"} for table in names("t")(count)],
    ".spec.groups": names("group"),
    ".spec.to.namespaceSelector.matchLabels": lambda count: dict.fromkeys(names("key")(count), "v"),
    ".spec.to.namespaceSelector.matchExpressions": lambda count: [
        {"key": key, "operator": "Exists"} for key in names("key")(count)
    ],
    ".spec.to.namespaceSelector.matchExpressions[].values": names("value"),
    ".spec.clones.profiles": lambda count: {name: {"cpu": 1} for name in names("profile")(count)},
    ".spec.clones.nodeSelector": lambda count: dict.fromkeys(names("key")(count), "v"),
    ".spec.migrations.versions": names("V"),
    ".spec.repositories": names("github.com/acme/shop"),
    ".spec.binding.keys": lambda count: dict.fromkeys(names("KEY")(count), "{uri}"),
}
"""Lists and maps of any size, by path."""

BESIDE: dict[str, dict[str, Any]] = {
    ".spec.publish": {".spec.from": {"clone": {"name": "db"}}},
    ".spec.pullRequest.provider": {".spec.pullRequest.repository": "acme/shop"},
    ".spec.lease.idle": {".spec.lease.max": "Never"},
    ".spec.lease.max": {".spec.lease.idle": "Never"},
    ".spec.maxClones.perNamespace": {".spec.maxClones.total": 10000},
    ".spec.maxClones.total": {".spec.maxClones.perNamespace": 0},
}
"""What must be set beside a field so that its bounds can be reached."""


@dataclass(frozen=True)
class Edits:
    """Objects that a rule accepts and refuses, as changes of a valid one: path to value.

    With ``old``, the object is there already, and what is sent is a change of it; ``old`` itself changes the valid one.
    """

    good: tuple[dict[str, Any], ...]
    bad: tuple[dict[str, Any], ...]
    old: dict[str, Any] | None = None


def values(path: str, good: list[Any], bad: list[Any]) -> Edits:
    return Edits(tuple({path: value} for value in good), tuple({path: value} for value in bad))


def change(path: str, other: Any) -> Edits:
    """A field that is immutable: everything else may change."""
    return Edits(({".metadata.labels": {"a": "b"}},), ({path: other},), old={})


def change_optional(path: str, other: str, absent: str = "") -> Edits:
    return Edits(({".metadata.labels": {"a": "b"}},), ({path: other}, {absent or path: ABSENT}), old={})


FROM_CLONE = {".spec.from": {"clone": {"name": "db"}}}
LABEL_KEYS = ([{}, {"kubernetes.io/arch": "arm64"}], [{"a b": "x"}, {"/x": "x"}, {"a" * 64: "x"}])
EMPTY_SELECTOR = (
    "an empty selector would select every namespace: name labels, or the key kubernetes.io/metadata.name "
    "with the operator Exists if every namespace is meant"
)
TOGETHER = (
    "from and commit go together: from.clone says what is committed, commit where to; leave out both for a snapshot of "
    "the store"
)
TOO_SHORT_A_MAX = "idle cannot be longer than max: lower idle or raise max"
BY_ADOPTION: dict[str, Any] = {".spec.managed": ABSENT, ".spec.adopted": ADOPTED}
WITHOUT_WRITER = {
    **BY_ADOPTION,
    ".spec.adopted": {key: value for key, value in ADOPTED.items() if key != "writer"},
}
BY_MIRROR: dict[str, Any] = {".spec.managed": ABSENT, ".spec.mirror": MIRROR}
RULES: dict[tuple[str, str], Edits] = {
    ("DataStore.spec", "who runs the server is immutable: create another DataStore"): Edits(
        ({".spec.managed.version": "1.84"},), (BY_ADOPTION, BY_MIRROR), old={}
    ),
    ("DataStore.spec", "the data of an adopted database are never deleted: leave deletionPolicy out"): Edits(
        (
            BY_ADOPTION,
            {**BY_ADOPTION, ".spec.deletionPolicy": ABSENT},
            {".spec.deletionPolicy": "Delete"},
            {**BY_MIRROR, ".spec.deletionPolicy": "Delete"},
        ),
        ({**BY_ADOPTION, ".spec.deletionPolicy": "Delete"},),
    ),
    (
        "DataStore.spec.adopted",
        "whoever looks does not write: put a login for publications alone into another Secret",
    ): Edits(
        (BY_ADOPTION, {**BY_ADOPTION, ".spec.adopted": {**ADOPTED, "credentialsSecret": "other"}}, WITHOUT_WRITER),
        ({**BY_ADOPTION, ".spec.adopted": {**ADOPTED, "credentialsSecret": "pg-coppice-writer"}},),
    ),
    ("DataStore.spec.engine", "engine is immutable: create another DataStore for the other engine"): change(
        ".spec.engine", "postgresql"
    ),
    ("DataStore.spec.managed.storage", "a volume never shrinks: ask for the present size or more"): Edits(
        ({".spec.managed.storage.size": "20480Mi"}, {".spec.managed.storage.size": "21Gi"}),
        ({".spec.managed.storage.size": "20479Mi"}, {".spec.managed.storage.size": 21474836479}),
        old={},
    ),
    (
        "DataStore.spec.managed.storage",
        "storageClassName is immutable: create another DataStore with the other class and load it",
    ): change_optional(".spec.managed.storage.storageClassName", "slow"),
    ("DataStore.spec.mirror.storage", "a volume never shrinks: ask for the present size or more"): Edits(
        ({".spec.mirror.storage.size": "21Gi"},), ({".spec.mirror.storage.size": "19Gi"},), old={}
    ),
    (
        "DataStore.spec.mirror.storage",
        "storageClassName is immutable: create another DataStore with the other class and load it",
    ): change_optional(".spec.mirror.storage.storageClassName", "slow"),
    ("DataStore.spec.clones.profiles", "names of profiles hold only lower-case letters, digits and '-'"): values(
        ".spec.clones.profiles", [{}, {"large": {"cpu": 4}}], [{"Large": {}}, {"a" * 64: {}}, {"": {}}]
    ),
    ("DataStore.spec.clones.nodeSelector", "keys are those of node labels, for example kubernetes.io/arch"): values(
        ".spec.clones.nodeSelector", *LABEL_KEYS
    ),
    ("DataGrant.spec.store", "store is immutable: create another DataGrant for the other store"): change(
        ".spec.store", "other"
    ),
    (
        "DataGrant.spec.to.namespaceSelector",
        EMPTY_SELECTOR,
    ): values(
        ".spec.to",
        [
            {"namespaceSelector": {"matchLabels": {"a": "b"}}},
            {"namespaceSelector": {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "Exists"}]}},
        ],
        [{"namespaceSelector": {}}, {"namespaceSelector": {"matchLabels": {}, "matchExpressions": []}}],
    ),
    (
        "DataGrant.spec.to.namespaceSelector.matchLabels",
        "keys are those of labels, for example coppice.dev/previews",
    ): Edits(
        ({".spec.to": {"namespaceSelector": {"matchLabels": LABEL_KEYS[0][1]}}},),
        tuple({".spec.to": {"namespaceSelector": {"matchLabels": labels}}} for labels in LABEL_KEYS[1]),
    ),
    (
        "DataGrant.spec.to.namespaceSelector.matchExpressions[]",
        "In and NotIn need values; Exists and DoesNotExist take none",
    ): values(
        ".spec.to",
        [
            {"namespaceSelector": {"matchExpressions": [{"key": "a", **demand}]}}
            for demand in (
                {"operator": "NotIn", "values": ["b"]},
                {"operator": "DoesNotExist"},
                {"operator": "Exists", "values": []},
            )
        ],
        [
            {"namespaceSelector": {"matchExpressions": [{"key": "a", **demand}]}}
            for demand in (
                {"operator": "In"},
                {"operator": "NotIn", "values": []},
                {"operator": "Exists", "values": ["b"]},
            )
        ],
    ),
    (
        "DataGrant.spec.maxClones",
        "perNamespace cannot be more than total: raise total or lower perNamespace",
    ): values(
        ".spec.maxClones",
        [{}, {"perNamespace": 5}, {"total": 1}, {"perNamespace": 5, "total": 5}],
        [{"perNamespace": 6, "total": 5}],
    ),
    ("DataGrant.spec", "forks are those of repositories: set repositories, or leave forks out"): Edits(
        (
            {},
            {".spec.forks": False, ".spec.repositories": ABSENT},
            {".spec.forks": ABSENT, ".spec.repositories": ABSENT},
        ),
        ({".spec.forks": True, ".spec.repositories": ABSENT},),
    ),
    ("DataSnapshot.spec", "spec is immutable: create another DataSnapshot"): change(".spec.store.name", "other"),
    (
        "DataSnapshot.spec",
        TOGETHER,
    ): Edits(
        ({".spec": COMMIT, ".metadata.name": "feature-1"}, {".metadata.labels": {"a": "b"}}),
        (
            {".spec.from": COMMIT["from"]},
            {".spec.commit": COMMIT["commit"], ".metadata.name": "feature-1"},
        ),
    ),
    (
        "DataSnapshot.spec",
        "the branch has the name of the store, whose own snapshots are called like that: choose another one",
    ): Edits(
        ({".spec": COMMIT, ".metadata.name": "feature-1"}, {".metadata.labels": {"a": "b"}}),
        ({".spec": {**COMMIT, "commit": {"branch": "shop", "parent": "a"}}, ".metadata.name": "shop-1"},),
    ),
    (
        "DataSnapshot.spec.commit.branch",
        "main is the store's own line, and nothing is committed to that: choose another branch",
    ): Edits(
        ({".spec.commit.branch": "maine", ".metadata.name": "maine-1"},),
        ({".spec.commit.branch": "main", ".metadata.name": "main-1"},),
    ),
    ("DataClone.spec.durability", "durability is immutable: make another DataClone"): change(
        ".spec.durability", "Fast"
    ),
    ("DataBranch.spec.store", "store is immutable: create another DataBranch for the other store"): change(
        ".spec.store.name", "other"
    ),
    ("DataBranch.spec.branchName", "branchName is immutable: create another DataBranch with the other name"): change(
        ".spec.branchName", "other"
    ),
    (
        "DataBranch.spec.branchName",
        "must not be HEAD, look like a commit hash or end in .lock: choose another name",
    ): values(
        ".spec.branchName",
        ["heads", "a" * 31, "a" * 33, "locks"],
        ["head", "HEAD", "0123456789abcdefghijklmnopqrstuv", "a.lock"],
    ),
    ("DataBranch.spec.history", "history is immutable: create another DataBranch"): change(".spec.history", "Full"),
    ("DataBranch.spec.from", "from is immutable: create another DataBranch from the other point"): change(
        ".spec.from", {"tag": "v1"}
    ),
    ("DataClone.spec.from", "from is immutable: delete the DataClone and create it anew"): change(
        ".spec.from.branch", "other"
    ),
    ("DataClone.spec.from", "maxAge goes with branch only: the other points in history do not age"): values(
        ".spec.from",
        [{**CLONE_STORE, "branch": "main", "maxAge": "1h"}, {**CLONE_STORE, "tag": "v1"}],
        [{**CLONE_STORE, **point, "maxAge": "1h"} for point in POINTS[1:]],
    ),
    (
        "DataClone.spec",
        "binding.secretName is immutable: delete the DataClone and create it anew",
    ): change_optional(".spec.binding.secretName", "other", absent=".spec.binding"),
    (
        "DataClone.spec",
        "binding.serviceName is immutable: delete the DataClone and create it anew",
    ): change_optional(".spec.binding.serviceName", "other", absent=".spec.binding"),
    ("DataClone.spec", "a clone that is refreshed follows a branch: set from.branch, or refresh Never"): Edits(
        (
            {".spec.refresh": "OnHeadChange"},
            {".spec.refresh": "0 3 * * *"},
            {".spec.from": {**CLONE_STORE, "tag": "v1"}},
        ),
        tuple(
            {".spec.refresh": refresh, ".spec.from": {**CLONE_STORE, **point}}
            for point in POINTS[1:]
            for refresh in ("OnHeadChange", "0 3 * * *")
        ),
    ),
    (
        "DataClone.spec",
        "without migrations none can change: set migrations, or onRevision to Keep or Reset",
    ): Edits(
        (
            {".spec.onRevision": "ResetIfMigrationsChanged"},
            {".spec.migrations": ABSENT, ".spec.onRevision": "Reset"},
            {".spec.migrations": ABSENT, ".spec.onRevision": ABSENT},
        ),
        ({".spec.migrations": ABSENT, ".spec.onRevision": "ResetIfMigrationsChanged"},),
    ),
    ("DataClone.spec", "pullRequest stays: delete the DataClone and create it anew"): Edits(
        (
            {".spec.pullRequest.appURL": ABSENT},
            {".spec.pullRequest.appURL": "https://elsewhere.example.com"},
            {".spec.revision": "def"},
        ),
        ({".spec.pullRequest": ABSENT},),
        old={},
    ),
    ("DataClone.spec.pullRequest.provider", "provider is immutable: delete the DataClone and create it anew"): Edits(
        ({".metadata.labels": {"a": "b"}},),
        ({".spec.pullRequest.provider": "github", ".spec.pullRequest.repository": "acme/shop"},),
        old={".spec.pullRequest.repository": "acme/shop"},
    ),
    (
        "DataClone.spec.pullRequest.repository",
        "repository is immutable: delete the DataClone and create it anew",
    ): change(".spec.pullRequest.repository", "acme/other"),
    ("DataClone.spec.pullRequest.number", "number is immutable: delete the DataClone and create it anew"): change(
        ".spec.pullRequest.number", 43
    ),
    ("DataClone.spec.pullRequest", "host is immutable: delete the DataClone and create it anew"): change_optional(
        ".spec.pullRequest.host", "gitlab.com"
    ),
    ("DataClone.spec.pullRequest", "a repository on GitHub is owner/name"): Edits(
        (
            {".spec.pullRequest.provider": "github", ".spec.pullRequest.repository": "acme/shop"},
            {".spec.pullRequest.repository": "acme/web/tools/shop"},
        ),
        ({".spec.pullRequest.provider": "github"},),
    ),
    ("DataClone.spec.binding.keys", "keys are names of environment variables, for example DATABASE_URL"): values(
        ".spec.binding.keys",
        [{}, {"_a.b-C": "x"}, {"A" * 63: "x"}],
        [{"A" * 64: "x"}, {"2A": "x"}, {"A B": "x"}, {"A=": "x"}, {"": "x"}],
    ),
    (
        "DataClone.spec.binding.keys",
        "type, provider, host, port, uri, username, password, database are there anyway: choose other names",
    ): values(
        ".spec.binding.keys",
        [{"HOST": "{host}", "urls": "{uri}"}],
        [{key: "x"} for key in dataclone.BINDING_KEYS],
    ),
    (
        "DataStore.spec.protection[].reviewers",
        "name users or groups, or leave reviewers out: then approvals of everybody who may review count",
    ): values(
        ".spec.protection",
        [
            [{"branches": ["main"]}],
            [{"branches": ["main"], "reviewers": {"users": ["rosa"]}}],
            [{"branches": ["main"], "reviewers": {"users": [], "groups": ["data-owners"]}}],
        ],
        [[{"branches": ["main"], "reviewers": nobody}] for nobody in ({}, {"users": []}, {"users": [], "groups": []})],
    ),
    ("DataChangeRequest.spec", "from and into name the same branch: nothing would change"): Edits(
        (
            {".spec.into.branch": "autumn2"},
            {".spec.from": {"clone": {"name": "live"}}},
            {".spec.from": {"revertOf": "live"}},
        ),
        ({".spec.into.branch": "autumn"}, {".spec.from": {"branch": "live"}}),
    ),
    (
        "DataChangeRequest.spec",
        "a clone is rebased: name it in from.clone; a branch is by a request from its parent into it",
    ): Edits(
        (
            {".spec.publish": "Branch"},
            {".spec.publish": ABSENT},
            {".spec.publish": "Rebase", ".spec.from": {"clone": {"name": "db"}}},
        ),
        ({".spec.publish": "Rebase"}, {".spec.publish": "Rebase", ".spec.from": {"revertOf": "live"}}),
    ),
    (
        "DataChangeRequest.spec",
        "a live database gets what a clone has changed: name it in from.clone",
    ): Edits(
        (
            {".spec.publish": "Branch"},
            {".spec.publish": ABSENT},
            {".spec.publish": "Database", **FROM_CLONE},
            {".spec.publish": "Patch", **FROM_CLONE},
        ),
        tuple(
            {".spec.publish": publish, **source}
            for publish in ("Database", "Patch")
            for source in ({}, {".spec.from": {"revertOf": "live"}})
        ),
    ),
    ("DataChangeRequest.spec.publish", "publish is immutable: make another DataChangeRequest"): Edits(
        ({**FROM_CLONE, ".metadata.labels": {"a": "b"}},),
        tuple({**FROM_CLONE, ".spec.publish": other} for other in ("Database", "Patch", "Rebase")),
        old=FROM_CLONE,
    ),
    ("DataChangeRequest.spec.store", "store is immutable: make another DataChangeRequest"): change(
        ".spec.store.name", "other"
    ),
    ("DataChangeRequest.spec.author", "author is immutable: make another DataChangeRequest"): change(
        ".spec.author", "rosa"
    ),
    (
        "DataChangeRequest.spec.from",
        "from is immutable: make another DataChangeRequest from the other source",
    ): change(".spec.from", {"branch": "winter"}),
    ("DataChangeRequest.spec.into", "into is immutable: make another DataChangeRequest into the other branch"): change(
        ".spec.into.branch", "test"
    ),
    (
        "DataChangeRequest.spec.resolutions[]",
        "name one of conflict, row and table, or none of them for everything",
    ): values(
        ".spec.resolutions",
        [
            [],
            [{"take": "Source"}],
            [{"conflict": "0123456789abcdef", "take": "Target"}, {"table": "track", "take": "Source"}],
        ],
        [
            [{"conflict": "0123456789abcdef", "row": "0123456789abcdef", "take": "Target"}],
            [{"row": "0123456789abcdef", "table": "track", "take": "Target"}],
            [{"take": "Source"}, {"conflict": "0123456789abcdef", "table": "track", "take": "Target"}],
        ],
    ),
    (
        "DataReview.spec",
        "an approval says what was looked at: copy status.patch of the DataChangeRequest, or use coppice review",
    ): Edits(
        ({".spec.verdict": "RequestChanges"}, {".spec.verdict": "RequestChanges", ".spec.patch": ABSENT}),
        ({".spec.patch": ABSENT},),
    ),
    ("DataReview.spec.request", "request is immutable: make another DataReview"): change(".spec.request", "other"),
    ("DataReview.spec.reviewer", "reviewer is immutable: make another DataReview"): change(".spec.reviewer", "eli"),
    ("DataClone.spec.lease", TOO_SHORT_A_MAX): values(
        ".spec.lease",
        [
            {},
            {"idle": "9999d"},
            {"max": "1s"},
            {"idle": "Never", "max": "1s"},
            {"idle": "9999d", "max": "Never"},
            {"idle": "24h", "max": "1d"},
            {"idle": "1d", "max": "1440m"},
            {"idle": "1d1h", "max": "25h"},
        ],
        [
            {"idle": "86401s", "max": "1d"},
            {"idle": "1d1s", "max": "24h"},
            {"idle": "2d", "max": "47h59m59s"},
            {"idle": "2s", "max": "1s"},
        ],
    ),
}
"""What to try for a rule, by where it stands and its message."""

COMMITS: dict[str, tuple[tuple[tuple[str, str, str], ...], tuple[tuple[str, str, str], ...]]] = {
    "metadata.name of a commit is <branch>-1 where it begins the branch; else it goes on from the parent: that of "
    "feature-2 is feature-1": (
        (
            ("feature-1", "feature", "shop-00012"),
            ("feature-1", "feature", "feature-x"),
            ("feature-2", "feature", "feature-1"),
            ("a-10", "a", "a-9"),
            ("a-1-10", "a-1", "a-1-9"),
        ),
        (
            ("feature", "feature", "any"),
            ("feature-", "feature", "any"),
            ("feature-0", "feature", "any"),
            ("feature-01", "feature", "any"),
            ("feature-x", "feature", "any"),
            ("feature1", "feature", "any"),
            ("features-1", "feature", "any"),
            ("x", "feature", "any"),
            ("feature-2", "feature", "shop-00012"),
            ("feature-3", "feature", "feature-1"),
            ("feature-2", "feature", "feature-2"),
            ("feature-2", "feature", "other-1"),
            ("feature-2", "feature", "feature-x"),
            ("feature-02", "feature", "feature-01"),
            ("feature--4", "feature", "feature--5"),
        ),
    ),
}
"""For the rule on the whole of a commit: name, branch and parent, accepted and refused."""

NAME_BOUNDS = {
    "DataStore": 40,
    "DataGrant": 63,
    "DataSnapshot": 52,
    "DataBranch": 40,
    "DataClone": 40,
    "DataChangeRequest": 40,
    "DataReview": 63,
}
SERVICE_KINDS = ("DataStore", "DataClone")

FRAGMENTS = {
    "pattern": "should match",
    "minLength": "chars long",
    "maxLength": "may not be more than",
    "minimum": "should be greater than or equal to",
    "maximum": "should be less than or equal to",
    "minItems": "should have at least",
    "maxItems": "must have at most",
    "maxProperties": "must have at most",
    "enum": "supported values",
    "required": "Required value",
    "format": "must be of type date-time",
    "x-kubernetes-list-type": "Duplicate value",
    "x-kubernetes-int-or-string": "must be of type integer,string",
}
"""Words of the API server's answer when a constraint is not met."""


@dataclass(frozen=True)
class Case:
    """Objects to send for one constraint."""

    constraint: Constraint
    good: tuple[dict[str, Any], ...]
    bad: tuple[dict[str, Any], ...]
    old: dict[str, Any] | None = None

    @property
    def fragment(self) -> str:
        return FRAGMENTS.get(self.constraint.keyword, self.constraint.argument)


def manifest(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return named({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": "db"}, "spec": copy.deepcopy(spec)})


def named(target: dict[str, Any]) -> dict[str, Any]:
    """Give a commit the name that its branch asks for."""
    commit = target["spec"].get("commit")
    if target["kind"] == "DataSnapshot" and commit is not None and "branch" in commit:
        target["metadata"]["name"] = f"{commit['branch']}-1"
    return target


def steps(path: str) -> list[str]:
    return re.findall(r"\[\]|\{\}|[^.\[\]{}]+", path)


def follow(value: Any, path: list[str]) -> Any:
    """Return what stands at a path; of lists and maps the first entry. Raises LookupError."""
    for step in path:
        if step == "[]":
            value = value[0]
        elif step == "{}":
            value = next(iter(value.values()))
        else:
            value = value[step]
    return value


def put(target: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy of an object with the value at the path, or without it."""
    result = copy.deepcopy(target)
    *before, last = steps(path)
    parent = follow(result, before)
    key = {"[]": 0, "{}": next(iter(parent), None)}.get(last, last)
    if value is ABSENT:
        parent.pop(key, None)
    else:
        parent[key] = value
    return result


def edited(target: dict[str, Any], edits: dict[str, Any]) -> dict[str, Any]:
    for path, value in edits.items():
        target = put(target, path, value)
    return target


def having(kind: str, path: str) -> dict[str, Any]:
    """Return the first valid object of a kind that has the field."""
    for spec in SPECS[kind]:
        candidate = edited(manifest(kind, spec), BESIDE.get(path, {}))
        try:
            follow(candidate, steps(path))
        except LookupError:
            continue
        return candidate
    raise LookupError(f"no valid {kind} in the tables has {path}")


def cases() -> Iterator[Case]:
    for constraint in constraints():
        yield case(constraint)


def case(constraint: Constraint) -> Case:
    """Return the objects to try; raises LookupError if the tables say nothing about a constraint."""
    if constraint.keyword == "rule":
        return rule_case(constraint)
    base = having(constraint.kind, constraint.path)
    good, bad = examples(constraint)
    return Case(
        constraint,
        tuple(named(with_operator(put(base, constraint.path, value))) for value in good),
        tuple(put(base, constraint.path, value) for value in bad),
    )


def with_operator(target: dict[str, Any]) -> dict[str, Any]:
    """Take the values from demands that may have none."""
    for demand in target["spec"].get("to", {}).get("namespaceSelector", {}).get("matchExpressions", []):
        if "Exist" in demand.get("operator", ""):
            demand.pop("values", None)
    return target


def examples(constraint: Constraint) -> tuple[list[Any], list[Any]]:
    """Return values for the field of a constraint: accepted and refused."""
    argument, keyword = constraint.argument, constraint.keyword
    if keyword in ("minLength", "maxLength"):
        pattern = constraint.schema.get("pattern")
        of_length = STRINGS[pattern].of_length if pattern else letters
        return [of_length(argument)], [of_length(argument + (1 if keyword == "maxLength" else -1))]
    if keyword in ("minItems", "maxItems", "maxProperties"):
        collection = COLLECTIONS[constraint.path]
        return [collection(argument)], [collection(argument + (-1 if keyword == "minItems" else 1))]
    if keyword == "required":
        whole = follow(having(constraint.kind, constraint.path), steps(constraint.path))
        return [whole], [{name: value for name, value in whole.items() if name != argument}]
    simple = {
        "pattern": lambda: (list(STRINGS[argument].good), list(STRINGS[argument].bad)),
        "minimum": lambda: ([argument], [argument - 1]),
        "maximum": lambda: ([argument], [argument + 1]),
        "enum": lambda: (list(argument), ["Nonsense", ""]),
        "format": lambda: (["2026-05-01T12:00:00Z", "2026-05-01T12:00:00.5+02:00"], ["yesterday", "2026-05-01"]),
        "x-kubernetes-list-type": lambda: (
            [COLLECTIONS[constraint.path](2)], [COLLECTIONS[constraint.path](1) * 2]
        ),
        "x-kubernetes-int-or-string": lambda: ([1073741824, "1Gi"], [True, 1.5, ["1Gi"]]),
    }  # fmt: skip
    return simple[keyword]()


def rule_case(constraint: Constraint) -> Case:
    place, message = f"{constraint.kind}{constraint.path}", constraint.argument
    if constraint.path == "":
        return name_case(constraint)
    if message.startswith("set exactly one of "):
        return exactly_one_case(constraint, message.removeprefix("set exactly one of ").split(", "))
    if message == "must be greater than zero":
        edits = values(constraint.path, [1, "1", "0.5", "1m"], [0, "0", "0.0", "0Gi"])
        base = having(constraint.kind, constraint.path)
    else:
        edits = RULES[place, message]
        base = having(constraint.kind, constraint.path.partition("[]")[0])
    old = None if edits.old is None else edited(base, edits.old)
    start = base if old is None else old
    return Case(
        constraint,
        tuple(edited(start, good) for good in edits.good),
        tuple(edited(start, bad) for bad in edits.bad),
        old,
    )


def name_case(constraint: Constraint) -> Case:
    kind, bound = constraint.kind, NAME_BOUNDS[constraint.kind]
    if constraint.argument in COMMITS:
        good, bad = COMMITS[constraint.argument]
        return Case(constraint, tuple(commit(*place) for place in good), tuple(commit(*place) for place in bad))
    if "characters" in constraint.argument:
        good, bad = ["a" * bound], ["a" * (bound + 1)]
    elif kind in SERVICE_KINDS:
        good, bad = ["a", "db-2"], ["a.b", "2-db"]
    else:
        good, bad = ["a", "2-db"], ["a.b"]
    base = manifest(kind, SPECS[kind][0])
    return Case(
        constraint,
        tuple(put(base, ".metadata.name", name) for name in good),
        tuple(put(base, ".metadata.name", name) for name in bad),
    )


def commit(name: str, branch: str, parent: str) -> dict[str, Any]:
    target = manifest("DataSnapshot", {**COMMIT, "commit": {"branch": branch, "parent": parent}})
    return put(target, ".metadata.name", name)


def exactly_one_case(constraint: Constraint, alternatives: list[str]) -> Case:
    path = constraint.path
    good = tuple(having(constraint.kind, f"{path}.{name}") for name in alternatives)
    none = put(good[0], f"{path}.{alternatives[0]}", ABSENT)
    second = follow(good[1], steps(f"{path}.{alternatives[1]}"))
    return Case(
        constraint, good, (edited(none, {f"{path}.maxAge": ABSENT}), put(good[0], f"{path}.{alternatives[1]}", second))
    )
