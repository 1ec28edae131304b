"""The walk over an export of one length: every number is read anew before its node is analysed.

The facts of everything before a node are known, so what a number must be follows from the shape that it meets. Where it
has two readings, the other one is kept as a `Doubt`, to be tried.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import onnx_ir as ir

from pulsify_onnx.algebra.facts import Blocked, QueryKey, Running, Stream
from pulsify_onnx.analysis.walker import Visitor
from pulsify_onnx.errors import refuse
from pulsify_onnx.prepare.fixed_length.ends import filling
from pulsify_onnx.prepare.fixed_length.export import EXPORT, Export
from pulsify_onnx.prepare.fixed_length.shapes import Shapes
from pulsify_onnx.prepare.fixed_length.tables import Tables
from pulsify_onnx.rules.arithmetic import ELEMENTWISE
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.traits import Trait, has


@dataclass(frozen=True)
class Rereading(Visitor):
    """Rewrites the graph of an `export` while it is walked."""

    export: Export

    def before(self, raw: ir.Node, node: Node) -> None:
        """Put lengths in place of the numbers of a node with a stream."""
        if not _concerned(node):
            return
        with suppress(TypeError, ValueError, IndexError, AttributeError):  # not as its schema says: its rule will tell
            self._rewrite(raw, node)

    def after(self, raw: ir.Node, node: Node) -> None:
        """Refuse windows as wide as the whole export, and find what fills up the last one."""
        if not _concerned(node):
            return
        self._one_left(node)
        ending = filling(self.export, raw, node)
        if ending is not None:
            self.export.ends.append(ending)

    def _one_left(self, node: Node) -> None:
        """Refuse windows as wide as the whole export: one frame of a longer stream, or all of any stream?"""
        if has(node, Trait.SLICES, Trait.GATHERS, Trait.RESHAPES, Trait.SPLITS):
            return
        at, facts = self.export.at, self.export.facts
        frames = max((at(f.extent) for f in node.streams), default=1)
        if frames > 1 and any(
            isinstance(made := facts.get(out), Stream) and at(made.extent) == 1 for out in node.outputs
        ):
            refuse(
                f"it makes one frame of all {frames} frames of the export, and nothing says whether "
                "a longer recording would have more of them or one wider one",
                hint=f"{EXPORT}, or pool by a mean over time",
            )

    def _rewrite(self, raw: ir.Node, node: Node) -> None:
        tables = Tables(self.export, raw, node)
        if has(node, Trait.MASK):
            tables.masked()
        if node.domain != "":
            return
        if not any(isinstance(f, (Stream, QueryKey)) for f in node.facts):
            if has(node, Trait.ARITHMETIC):
                tables.counted()
        elif node.op_type in ELEMENTWISE:
            tables.broadcast()
        else:
            for trait, rewrite in _SHAPES.items():
                if has(node, trait):
                    rewrite(Shapes(self.export, raw, node))
            for trait, fill in _TABLES.items():
                if has(node, trait):
                    fill(tables)


def _concerned(node: Node) -> bool:
    """Whether a node reads a stream, or what follows from one, and nothing that is blocked."""
    return not any(isinstance(f, Blocked) for f in (*node.facts, *node.outer.values())) and any(
        isinstance(f, (Stream, QueryKey, Running)) for f in node.facts
    )


_SHAPES: dict[Trait, Callable[[Shapes], None]] = {
    Trait.RESHAPES: Shapes.reshape,
    Trait.EXPANDS: Shapes.expand,
    Trait.SLICES: Shapes.slice,
    Trait.RESIZES: Shapes.resize,
    Trait.SPLITS: Shapes.split,
    Trait.PADS: Shapes.pad,
}
_TABLES: dict[Trait, Callable[[Tables], None]] = {
    Trait.JOINS: Tables.concat,
    Trait.GATHERS: Tables.gather,
    Trait.RECURRENT: Tables.recurrent,
}
