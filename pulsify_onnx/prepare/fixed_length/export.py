"""An export of one length that is being read anew: what is known of it on the way, and what was found."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from pulsify_onnx.algebra.facts import Fact, Stream
from pulsify_onnx.algebra.length import TIME, Length
from pulsify_onnx.analysis.walker import Walker
from pulsify_onnx.arrays import Array
from pulsify_onnx.errors import Blocker
from pulsify_onnx.model.edit import names_of
from pulsify_onnx.model.load import Source
from pulsify_onnx.prepare.fixed_length.regroup import OTHER_LENGTH
from pulsify_onnx.runtime.sidecar import ReadAnew

EXPORT = "export the model with a dynamic length"
NUMBER, SHARE, FILL = "number", "share", "fill"
"""Answers to what a number of an export means: it is one, it follows the length, it fills up to a multiple of
frames.
"""
READINGS = (NUMBER, SHARE, FILL)
ENDING = "convert without an end of stream, or export the model with a dynamic length"


@dataclass(frozen=True)
class AmbiguousConstant:
    """A constant of `node` with another reading: a model that is tried, and what the two readings are in words."""

    node: str
    op_type: str
    constant: str
    told: str
    written: str = ""
    other: Array | None = field(default=None, compare=False)
    inputs: tuple[str | None, ...] = ()
    choices: tuple[str, ...] = (NUMBER, SHARE)

    def model(self, model: ir.Model) -> ir.Model:
        """A copy of the model in the other reading: with `other` as the initializer `written`, or with the node's
        `inputs` as they were.
        """
        copy = model.clone()
        if self.other is not None:
            copy.graph.initializers[self.written].const_value = ir.tensor(self.other)
            return copy
        node = next(n for n in copy.graph if n.name == self.node)
        known = {v.name: v for n in copy.graph for v in (*n.inputs, *n.outputs) if v is not None} | dict(
            copy.graph.initializers
        )
        node.resize_inputs(len(self.inputs))
        for k, name in enumerate(self.inputs):
            node.replace_input_with(k, None if name is None else known[name])
        return copy


def offered(hint: str, node: str, choices: Sequence[str]) -> str:
    """`hint`, and the options that answer which reading of `node` is meant."""
    return f"{hint}; or say what it is: " + " or ".join(
        f"--reading {shlex.quote(f'{node}={choice}')}" for choice in choices
    )


@dataclass
class Export:
    """A model that was exported for `frames` base frames, on the `walk` through which its graph is rewritten.

    `given`: readings by node, `asked`: which were asked for. `fills`: of pads that are read as filling up, the multiple
    of frames; `filling`: those that were found on the way. `ends`: what blocks streams that end. `taken`: names in use.
    """

    walk: Walker
    frames: int
    given: Mapping[str, str]
    fills: Mapping[str, int]
    asked: dict[str, set[str]]
    changes: list[ReadAnew] = field(default_factory=list)
    doubts: list[AmbiguousConstant] = field(default_factory=list)
    ends: list[Blocker] = field(default_factory=list)
    filling: dict[str, int] = field(default_factory=dict)
    taken: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self.taken = names_of(self.source.model.graph)

    @property
    def source(self) -> Source:
        """The model, rewritten as far as the walk has come."""
        return self.walk.source

    @property
    def facts(self) -> Mapping[str, Fact]:
        """What is known of its values so far."""
        return self.walk.facts

    def said(self, node: str, choices: tuple[str, ...]) -> str | None:
        """The reading of `node` that was given, if it is one of the `choices`; and takes down that it was asked for."""
        self.asked.setdefault(node, set()).update(choices)
        said = self.given.get(node)
        return said if said in choices else None

    def at(self, length: Length) -> int:
        """A length as the export had it."""
        return length.evaluate({name: OTHER_LENGTH for name in length.symbols()} | {TIME: self.frames})

    def lengths(self) -> set[int]:
        """How many frames the streams had in the export."""
        return {self.at(f.extent) for f in self.facts.values() if isinstance(f, Stream)}
