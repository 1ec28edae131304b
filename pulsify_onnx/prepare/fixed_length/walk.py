"""The walk over an export of one length: every number is read anew before its node is analysed.

The facts of everything before a node are known, so what a number must be follows from the shape that it meets. Where it has
two readings, the other one is kept as a `Doubt`, to be tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from pulsify_onnx.algebra.facts import Blocked, Pair, Prefix, Stream
from pulsify_onnx.algebra.length import TIME, Length
from pulsify_onnx.analysis.walker import Walker
from pulsify_onnx.errors import Blocker, Refusal, refuse
from pulsify_onnx.prepare.fixed_length.ends import filling
from pulsify_onnx.prepare.fixed_length.regroup import OTHER
from pulsify_onnx.prepare.fixed_length.rewriting import EXPORT, Doubt
from pulsify_onnx.prepare.fixed_length.shapes import Shapes
from pulsify_onnx.prepare.fixed_length.tables import Tables
from pulsify_onnx.rules.arithmetic import ELEMENTWISE
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import CONTRIB
from pulsify_onnx.runtime.sidecar import ReadAnew


@dataclass
class Baked(Walker):
    """Walks a model that was exported for `frames` base frames, and rewrites its graph on the way.

    `given`: readings by node, `asked`: which were asked for. `fills`: of pads that are read as filling up, the multiple of frames;
    `filling`: those that were found on the way.
    """

    frames: int = 0
    changes: list[ReadAnew] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)
    ends: list[Blocker] = field(default_factory=list)
    given: Mapping[str, str] = field(default_factory=dict)
    asked: dict[str, set[str]] = field(default_factory=dict)
    fills: Mapping[str, int] = field(default_factory=dict)
    filling: dict[str, int] = field(default_factory=dict)

    def _visit(self, raw: ir.Node) -> None:
        node = self._node(raw)
        known = not any(isinstance(f, Blocked) for f in (*node.facts, *node.outer.values()))
        if known and raw.graph is self.source.model.graph and any(isinstance(f, (Stream, Pair, Prefix)) for f in node.facts):
            try:
                try:
                    self._read_anew(raw, node)
                except (TypeError, ValueError, IndexError, AttributeError):
                    pass  # a node that is not as its schema says: its rule will tell
                super()._visit(raw)
                self._one_left(self._node(raw))
                ending = filling(self, raw, self._node(raw))
                if ending is not None:
                    self.ends.append(ending)
            except Refusal as refusal:
                self._refused(node, refusal)
        else:
            super()._visit(raw)

    def said(self, node: str, choices: tuple[str, ...]) -> str | None:
        """The reading of `node` that was given, if it is one of the `choices`; and takes down that it was asked for."""
        self.asked.setdefault(node, set()).update(choices)
        said = self.given.get(node)
        return said if said in choices else None

    def told(self, raw: ir.Node) -> Node:
        """A node with what is known of its inputs."""
        return self._node(raw)

    def at(self, length: Length) -> int:
        """A length as the export had it."""
        return length.evaluate({name: OTHER for name in length.symbols()} | {TIME: self.frames})

    def lengths(self) -> set[int]:
        """How many frames the streams had in the export."""
        return {self.at(f.extent) for f in self.facts.values() if isinstance(f, Stream)}

    def _one_left(self, node: Node) -> None:
        """Refuse windows as wide as the whole export: one frame of a longer stream, or all of any stream?"""
        if node.op_type in ("Slice", "Gather", "Reshape", "Split"):
            return
        for out in node.outputs:
            made = self.facts.get(out)
            if isinstance(made, Stream) and self.at(made.extent) == 1 and max((self.at(f.extent) for f in node.streams), default=1) > 1:
                refuse(f"it makes one frame of all {max(self.at(f.extent) for f in node.streams)} frames of the export, and nothing says whether "
                       "a longer recording would have more of them or one wider one", hint=f"{EXPORT}, or pool by a mean over time")

    def visit_made(self, made: ir.Node) -> None:
        """A node that was put before the one that is visited."""
        super()._visit(made)

    def learn(self, name: str, value: ir.Value) -> None:
        """A new initializer."""
        self._initializer(name, value)

    def _read_anew(self, raw: ir.Node, node: Node) -> None:
        if (node.domain, node.op_type) in (("", "Attention"), (CONTRIB, "MultiHeadAttention")):
            Tables(self, raw, node).masked()
        if node.domain != "":
            return
        if not any(isinstance(f, (Stream, Pair)) for f in node.facts):
            if node.op_type in ("Mul", "Div", "Add", "Sub", "Pow"):
                Tables(self, raw, node).counted()
        elif node.op_type in ELEMENTWISE:
            Tables(self, raw, node).broadcast()
        elif node.op_type in _SHAPES:
            _SHAPES[node.op_type](Shapes(self, raw, node))
        elif node.op_type in _TABLES:
            _TABLES[node.op_type](Tables(self, raw, node))


_SHAPES: dict[str, Callable[[Shapes], None]] = {
    "Reshape": Shapes.reshape, "Expand": Shapes.expand, "Slice": Shapes.slice, "Resize": Shapes.resize, "Split": Shapes.split,
    "Pad": Shapes.pad,
}
_TABLES: dict[str, Callable[[Tables], None]] = {
    "Concat": Tables.concat, "Gather": Tables.gather, "GRU": Tables.recurrent, "LSTM": Tables.recurrent, "RNN": Tables.recurrent,
}
