"""What the double checks of documents against their schema, and the witnesses by which it says what is wrong.

Which witness names what was read in the source of 12.0.6: a reference to nothing names what is not there, a deletion of something that is referred to
names who refers to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from refusals import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Content = dict[str, Any]
DATA, SCHEMA = "terminusdb:///data/", "terminusdb:///schema#"
CASTS: dict[str, Any] = {
    "xsd:string": str, "xsd:integer": int, "xsd:long": int, "xsd:decimal": (int, float), "xsd:boolean": bool,
    "xsd:dateTime": str, "xsd:date": str, "xsd:base64Binary": str,
}  # fmt: skip
MANY = ("Set", "List", "Array", "Cardinality")


def check(classes: Content, documents: Mapping[str, Content], names: Iterable[str], dropped: Iterable[str]) -> None:
    """Refuse documents of these names that their classes do not allow, and what refers to those that were dropped."""
    witnesses = [
        witness for name in names if name in documents for witness in _wrong(classes, documents, name, documents[name])
    ]
    witnesses += _dangling(classes, documents, set(dropped) - documents.keys())
    if witnesses:
        raise RefusedError(
            400,
            "api:SchemaCheckFailure",
            f"Schema check failure: {witnesses[0]['@type']} {witnesses[0].get('class', '')}",
            **{"api:witnesses": witnesses},
        )


def properties(classes: Content, kind: str) -> Content:
    known = classes.get(kind, {})
    inherits = known.get("@inherits", [])
    found: Content = {}
    for parent in [inherits] if isinstance(inherits, str) else inherits:
        found.update(properties(classes, parent))
    return {**found, **{name: wanted for name, wanted in known.items() if not name.startswith("@")}}


def _wrong(
    classes: Content, documents: Mapping[str, Content], name: str, document: Content
) -> Iterator[dict[str, Any]]:
    kind = document["@type"]
    about = {"instance": f"{DATA}{name}", "class": f"{SCHEMA}{kind}"}
    if kind not in classes:
        yield {"@type": "ascribed_type_does_not_exist", **about}
        return
    known = properties(classes, kind)
    for word in document:
        if not word.startswith("@") and word not in known:
            yield {"@type": "invalid_predicate", "subject": about["instance"], "predicate": f"{SCHEMA}{word}"}
    for word, wanted in known.items():
        optional = isinstance(wanted, dict)
        if word not in document:
            if not optional:
                yield {"@type": "instance_not_cardinality_one", **about, "predicate": f"{SCHEMA}{word}"}
            continue
        inner = wanted["@class"] if optional else wanted
        many = optional and wanted["@type"] in MANY
        for value in document[word] if many else [document[word]]:
            yield from _wrong_value(classes, documents, inner, value, about)


def _wrong_value(
    classes: Content, documents: Mapping[str, Content], wanted: str, value: Any, about: dict[str, str]
) -> Iterator[dict[str, Any]]:
    if wanted in CASTS:
        if not isinstance(value, CASTS[wanted]):
            yield {"@type": "element_of_wrong_type", **about, "type": wanted}
    elif classes.get(wanted, {}).get("@type") == "Enum":
        if value not in classes[wanted]["@value"]:
            yield {"@type": "element_of_wrong_type", **about, "type": wanted}
    elif isinstance(value, str) and value not in documents:
        yield {"@type": "instance_not_of_class", "instance": f"{DATA}{value}", "class": f"{SCHEMA}{wanted}"}


def _dangling(classes: Content, documents: Mapping[str, Content], dropped: set[str]) -> Iterable[dict[str, Any]]:
    links = {
        kind: [word for word, wanted in properties(classes, kind).items() if _target(wanted) in classes]
        for kind in classes
    }
    if not dropped or not any(links.values()):
        return
    for name, document in documents.items():
        for word in links.get(document["@type"], ()):
            values = document.get(word)
            for value in values if isinstance(values, list) else [values]:
                if isinstance(value, str) and value in dropped:
                    yield {
                        "@type": "deleted_object_still_referenced", "subject": f"{DATA}{name}", "predicate": f"{SCHEMA}{word}",
                        "object": f"{DATA}{value}",
                    }  # fmt: skip


def _target(wanted: Any) -> str:
    return str(wanted["@class"] if isinstance(wanted, dict) else wanted)
