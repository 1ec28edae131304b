"""Frozen dataclasses as JSON and back, and the JSON schema of them: all three follow from the types of their fields."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from fractions import Fraction
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.length_text import parse

Json = dict[str, Any]


def says(text: str = "", always: bool = False) -> dict[str, Any]:
    """Metadata of a field: what it says, and whether it is written even where it has its default."""
    return {"says": text, "always": always}


NAMES = {int: "integer", str: "string", bool: "boolean", float: "number", type(None): "null"}
"""JSON's names of plain types."""


def encoded(value: Any) -> Any:
    """`value` as plain data."""
    if is_dataclass(value) and not isinstance(value, Length):
        return dict(_written(value))
    if isinstance(value, Length):
        return str(value)
    if isinstance(value, Fraction):
        return [value.numerator, value.denominator]
    if isinstance(value, Mapping):
        return {key: encoded(own) for key, own in value.items()}
    return [encoded(own) for own in value] if isinstance(value, (tuple, list)) else value


def _written(value: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a dataclass that are written."""
    for f in fields(value):
        own = getattr(value, f.name)
        if f.metadata.get("always") or own != _default(f):
            yield f.name, encoded(own)


def decoded(kind: Any, value: Any, where: str) -> Any:
    """`value` as a `kind`. Raises ValueError, which says where it is none."""
    if kind is Any:
        return value
    if is_dataclass(kind) and kind is not Length:
        return _object(kind, value, where)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return decoded(_alternative(inner, value, where), value, where)
    if origin is tuple and isinstance(value, list):
        every = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        if len(every) == len(value):
            return tuple(decoded(k, own, f"{where}[{n}]") for n, (k, own) in enumerate(zip(every, value)))
    elif (
        kind is Fraction
        and isinstance(value, list)
        and len(value) == 2
        and all(isinstance(n, int) for n in value)
        and value[1]
    ):
        return Fraction(*value)
    elif kind is Length and isinstance(value, str):
        return parse(value)
    elif origin is not tuple and _fits(kind, value):
        return (
            {key: decoded(inner[1], own, f"{where}.{key}") for key, own in value.items()}
            if isinstance(value, Mapping)
            else value
        )
    raise ValueError(f"{where.lstrip('.') or 'the document'} is {value!r}"[:200])


def schema_of(kind: Any) -> Json:
    """The JSON schema of a type."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return {}
    if kind is Length:
        return {"type": "string"}
    if kind is Fraction:
        return {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}
    if is_dataclass(kind) and isinstance(kind, type):
        required = [f.name for f in fields(kind) if f.metadata.get("always") or _default(f) is MISSING]
        return {
            "type": "object",
            "properties": {f.name: _described(f, schema_of(_types(kind)[f.name])) for f in fields(kind)},
            "required": required,
        }
    if origin is Literal:
        return {"const": inner[0]}
    if origin is tuple:
        if inner[-1] is Ellipsis:
            return {"type": "array", "items": schema_of(inner[0])}
        return {
            "type": "array",
            "prefixItems": [schema_of(k) for k in inner],
            "minItems": len(inner),
            "maxItems": len(inner),
        }
    if origin in (Union, types.UnionType):
        return (
            {"type": [NAMES[k] for k in inner]}
            if all(k in NAMES for k in inner)
            else {"anyOf": [schema_of(k) for k in inner]}
        )
    if origin is not None and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": schema_of(inner[1])}
    return {"type": NAMES[kind]}


def _described(f: Field[Any], form: Json) -> Json:
    return {**form, "description": f.metadata["says"]} if f.metadata.get("says") else form


def _object(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where.lstrip('.') or 'the document'} is no object")
    known = {}
    for f in fields(kind):
        if f.name in value:
            known[f.name] = decoded(_types(kind)[f.name], value[f.name], f"{where}.{f.name}")
        elif _default(f) is MISSING:
            raise ValueError(f"{where}.{f.name}".lstrip(".") + " is missing")
    return kind(**known)


def _alternative(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    """The one of several types that a value has: by its ``kind`` where they are objects."""
    for kind in kinds:
        if _fits(kind, value):
            return kind
    raise ValueError(f"{where.lstrip('.')} is {value!r}"[:200])


def _fits(kind: Any, value: Any) -> bool:
    origin = get_origin(kind)
    if kind is Length:
        return isinstance(value, str)
    if is_dataclass(kind) and isinstance(kind, type):
        own = _types(kind).get("kind")
        return isinstance(value, Mapping) and (own is None or value.get("kind") in get_args(own))
    if origin is Literal:
        return value in get_args(kind)
    if origin is not None:
        return isinstance(value, list if origin is tuple else origin)
    if kind in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if kind is float else kind)


@cache
def _types(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _default(f: Field[Any]) -> Any:
    """What a field is where nothing is said; MISSING where something must be."""
    return f.default_factory() if f.default_factory is not MISSING else f.default
