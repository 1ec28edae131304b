"""The reference of the sidecar, made from its dataclasses: every key, its type, and what it says.

``python -m pulsify_onnx.report.sidecar_page`` prints it; ``--write docs/sidecar.md`` replaces what stands between the
markers there.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from fractions import Fraction
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pulsify_onnx.algebra.length import Length
from pulsify_onnx.report.pages import between, command
from pulsify_onnx.runtime.json_form import NAMES
from pulsify_onnx.runtime.sidecar import FixedLength, Head, Input, LeftContext, Output, Sidecar, State

START, END = "<!-- keys: made by python -m pulsify_onnx.report.sidecar_page -->", "<!-- end of keys -->"

SECTIONS = (
    ("Inputs", Input, "inputs[]."),
    ("Outputs", Output, "outputs[]."),
    ("States", State, "states[]."),
    ("Of a model that was exported for one length", FixedLength, "fixed_length."),
    ("With `--head window`", Head, "head."),
    ("With `--left-context`", LeftContext, "approximation."),
)
"""What has a table of its own: a title, its classes, and where it is in the document."""


@dataclass(frozen=True)
class Row:
    """A key with its path, its type in words, what it says, and whether it may be left out."""

    key: str
    type: str
    says: str
    always: bool


def rows(kind: Any, path: str = "") -> Iterator[Row]:
    """Every key of one class or of several, those of what is in them too; keys that several have are there once."""
    found: dict[str, Row] = {}
    for own in _classes(kind):
        hints = get_type_hints(own)
        for f in fields(own):
            always = f.metadata.get("always", False) or f.default is f.default_factory is MISSING
            for row in _of(path + f.name, hints[f.name], f.metadata.get("says", ""), always):
                found.setdefault(row.key, row)
    kinds = [
        (get_args(get_type_hints(own).get("kind"))[0], _summary(own))
        for own in _classes(kind)
        if "kind" in get_type_hints(own)
    ]
    for row in found.values():
        yield (
            Row(row.key, "string", "; ".join(f"`{name}`: {text}" for name, text in kinds), True)
            if row.key == f"{path}kind"
            else row
        )


def _of(key: str, kind: Any, says: str, always: bool) -> Iterator[Row]:
    """The row of a key, where it has one of its own, and those of the classes in it."""
    inner = list(_classes(kind))
    listed = get_origin(kind) is tuple
    own_table = {k for _, section, _ in SECTIONS for k in _classes(section)}
    if not inner or listed:
        yield Row(key, _type(kind if always else _without_null(kind)), says, always)
    if inner and not own_table & set(inner):
        yield from (row for own in inner for row in rows(own, f"{key}[]." if listed else f"{key}."))


def _classes(kind: Any) -> Iterator[type]:
    """The dataclasses that a type is made of."""
    if is_dataclass(kind) and isinstance(kind, type):
        if kind is not Length:
            yield kind
    else:
        for inner in get_args(kind):
            yield from _classes(inner)


def _without_null(kind: Any) -> Any:
    """The type of a key that is left out where it would be null."""
    return Union[tuple(k for k in get_args(kind) if k is not type(None))] if type(None) in get_args(kind) else kind


def _type(kind: Any) -> str:
    """A type in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return "nested lists"
    if kind is Length:
        return "string"
    if kind is Fraction:
        return "[integer, integer]"
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_type, inner)))
    if origin is Literal:
        return "string"
    if origin is tuple:
        several = [_type(k) for k in inner if k is not Ellipsis]
        return f"list of {several[0]}" if inner[-1] is Ellipsis else f"[{', '.join(several)}]"
    if origin is not None and issubclass(origin, Mapping):
        return f"object of {_type(inner[1])}"
    return NAMES.get(kind, "object")


def _summary(own: type) -> str:
    """The first line of a docstring as a part of a sentence."""
    line = (own.__doc__ or "").strip().splitlines()[0].rstrip(".").replace("``", "`")
    return line[:1].lower() + line[1:]


def page() -> str:
    """The tables in Markdown."""
    top = list(rows(Sidecar))
    sections = [
        ("Always", [row for row in top if row.always]),
        *((title, list(rows(kind, path))) for title, kind, path in SECTIONS),
        ("With a batch", [row for row in top if not row.always]),
    ]
    return "\n\n".join(f"## {title}\n\n" + _table(found) for title, found in sections)


def _table(found: Iterable[Row]) -> str:
    return "\n".join(
        ["| key | type | says |", "|---|---|---|", *(f"| `{row.key}` | {row.type} | {row.says} |" for row in found)]
    )


def written(text: str) -> str:
    """`text` with the tables between its markers; unchanged where it has none."""
    return between(text, START, END, f"\n{page()}\n")


def main(arguments: Iterable[str]) -> None:
    """Print the tables, or write them into a file."""
    command(arguments, "pulsify_onnx.report.sidecar_page", page, written)


if __name__ == "__main__":
    main(sys.argv[1:])
