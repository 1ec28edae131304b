"""Attributes of operators, kept as the source has them, in a form that compares by value."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import onnx_ir as ir


class Attribute:
    """An attribute of the source, kept as it is; compares by value (subgraphs and tensors: by identity)."""

    __slots__ = ("_key", "attr")

    def __init__(self, attr: ir.Attr):
        self.attr = attr
        whole = attr.type in (
            ir.AttributeType.GRAPH,
            ir.AttributeType.GRAPHS,
            ir.AttributeType.TENSOR,
            ir.AttributeType.TENSORS,
        )
        self._key = (attr.name, attr.type, id(attr.value) if whole else repr(attr.value))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Attribute) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def attributes(values: Iterable[tuple[str, Any]]) -> tuple[tuple[str, Any], ...]:
    """Attributes in the hashable form that an `Op` has them."""
    return tuple(
        (k, Attribute(v) if isinstance(v, ir.Attr) else tuple(v) if isinstance(v, list) else v) for k, v in values
    )
