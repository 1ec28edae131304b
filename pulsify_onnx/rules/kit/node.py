"""What a rule sees of a node: typed attributes with the schema's defaults, and the facts of its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Protocol

import numpy as np
import onnx
import onnx_ir as ir

from pulsify_onnx.algebra.attributes import attributes
from pulsify_onnx.algebra.facts import Fact, ShapeTensor, Static, Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Options, Step
from pulsify_onnx.arrays import Array, Const
from pulsify_onnx.errors import refuse


@lru_cache(maxsize=4096)
def _defaults(op_type: str, since: int, domain: str) -> dict[str, Any]:
    try:
        schema = onnx.defs.get_schema(op_type, since, domain)
    except onnx.defs.SchemaError:
        return {}
    return {
        name: onnx.helper.get_attribute_value(a.default_value)
        for name, a in schema.attributes.items()
        if a.default_value.name
    }


class Context(Protocol):
    """What the analysis knows so far, for rules that must evaluate an input at given frames."""

    @property
    def opset(self) -> int:
        """The opset of ai.onnx."""

    @property
    def symbols(self) -> frozenset[str]:
        """Names of the lengths that the sizes of the graph's inputs are made of."""

    @property
    def promised_multiple(self) -> int:
        """What the base frames of every stream are a multiple of, as the model itself says."""

    def fact_of(self, wire: str) -> Fact | None:
        """The fact of a tensor that flows."""

    def step_of(self, wire: str) -> Step | None:
        """The step that computes it; None for inputs and constants."""

    def value_of(self, wire: str) -> Const | None:
        """Its value, where it is a constant."""

    def weights_of(self, wire: str) -> Array | None:
        """Its value, where it is a constant that no step computes: weights are not copied."""

    def declared_rank(self, wire: str) -> int | None:
        """How many dimensions it has as an output of the graph, where that says so."""

    def within(self, graph: ir.Graph, inputs: Mapping[str, Fact]) -> tuple[list[Fact], Sequence[Step]]:
        """Facts of the outputs of a subgraph on `inputs`, and the steps that make them. Raises `Refusal` where its
        nodes can't stream.
        """


@dataclass(frozen=True)
class Node:
    """A node of the source with the facts of its inputs (None for an optional input left out).

    ``outer`` has the facts of the values that its subgraphs read by name.
    """

    name: str
    op_type: str
    domain: str
    since: int
    opset: int
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, ir.Attr]
    facts: tuple[Fact | None, ...]
    options: Options
    world: Context
    outer: Mapping[str, Fact] = field(default_factory=dict)

    def attr(self, name: str, default: Any = None) -> Any:
        """Value of an attribute, else the schema's default, else `default`. Strings are str."""
        found = self.attributes.get(name)
        value = (
            found.value if found is not None else _defaults(self.op_type, self.since, self.domain).get(name, default)
        )
        return value.decode() if isinstance(value, bytes) else value

    @cached_property
    def read_facts(self) -> tuple[Fact, ...]:
        """The facts of all that it reads, its subgraphs included."""
        return (*(f for f in self.facts if f is not None), *self.outer.values())

    @cached_property
    def kinds(self) -> frozenset[type[Fact]]:
        """The kinds of facts that it reads."""
        return frozenset(map(type, self.read_facts))

    @property
    def kept(self) -> tuple[tuple[str, Any], ...]:
        """All attributes as they are, for an operator that is kept."""
        return attributes(self.attributes.items())

    def replaced(self, **changes: Any) -> tuple[tuple[str, Any], ...]:
        """The attributes with some replaced, or (None) left out."""
        kept = {**dict(self.kept), **changes}
        return attributes((name, value) for name, value in kept.items() if value is not None)

    def fact(self, index: int) -> Fact | None:
        """The fact of input `index`, None where it is left out."""
        return self.facts[index] if index < len(self.facts) else None

    def const(self, index: int, what: str) -> Array | None:
        """Constant value of input `index` (None where left out); refuses what is not constant, calling it `what`."""
        fact = self.fact(index)
        if fact is None:
            return None
        if isinstance(fact, Static) and fact.value is not None:
            return fact.value.array
        refuse(f"{what} is computed at run time", hint=f"make {what} a constant before exporting")

    def sizes(self, index: int, what: str) -> list[Length] | None:
        """Input `index` as a list of lengths; refuses what is not known, calling it `what`."""
        fact = self.fact(index)
        if isinstance(fact, ShapeTensor):
            return list(fact.values)
        value = self.const(index, what)
        return None if value is None else [Length.of(int(v)) for v in np.atleast_1d(value).ravel()]

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Facts of all inputs that stream."""
        return tuple(f for f in self.facts if isinstance(f, Stream))

    def axis(self, rank: int, name: str = "axis", default: int | None = None) -> int:
        """Attribute `name` as a non-negative axis of a tensor of `rank`."""
        value = int(self.attr(name, default))
        return value + rank if value < 0 else value

    def ints(self, name: str, default: Any = None) -> list[int] | None:
        """A list attribute."""
        value = self.attr(name, default)
        return None if value is None else [int(v) for v in value]
