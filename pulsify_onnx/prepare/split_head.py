"""Where a model of clips ends to stream: its body gives the same frames in whatever window they are seen, its head
needs one whole window.

The head is every node that can't stream or reduces the stream, every one that counts frames or carries something on
from frame to frame (in another window it would start elsewhere), and all that follows. The body is cut from the model
with the streams that the head reads as its outputs, and read anew for any length; the head stays as it was exported.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from pulsify_onnx.algebra.facts import Fact, Shape, ShapeTensor, Static, Stream
from pulsify_onnx.algebra.length import TIME, Length
from pulsify_onnx.algebra.plan import (
    Count,
    Offset,
    Options,
    Past,
    Plan,
    Position,
    QueryKeyRead,
    Ref,
    Start,
    Window,
    leaves,
)
from pulsify_onnx.analysis.axis import index_of
from pulsify_onnx.analysis.walker import analyze
from pulsify_onnx.arrays import Array
from pulsify_onnx.errors import AmbiguousAxis, CannotStream, UsageError
from pulsify_onnx.model.edit import GraphEditor
from pulsify_onnx.model.load import Source
from pulsify_onnx.model.subgraphs import all_nodes, outer_names, subgraphs
from pulsify_onnx.prepare.fixed_length import (
    OTHER_LENGTH,
    DynamicLength,
    checked,
    dynamic,
    make_length_dynamic,
    readings,
)
from pulsify_onnx.prepare.passes import ANY_LENGTH, HEAD, NAMED, ORDERED, Contract, Head, Prepared, window_of
from pulsify_onnx.rules.kit.traits import Trait, has


@dataclass(frozen=True)
class SplitHead:
    """A model that was exported for one length, or is to be used at `frames` base frames, becomes a body and a head.

    The body takes any length. The stream axes that are known are all of them, or none where they can be told.
    """

    frames: int | None = None

    requires: ClassVar[tuple[Contract, ...]] = (NAMED, ORDERED)
    ensures: ClassVar[tuple[Contract, ...]] = (NAMED, ORDERED, ANY_LENGTH, HEAD)

    def __call__(self, model: Prepared) -> Prepared:
        """Raises `UsageError`, `AmbiguousAxis` where it can be read in several ways which axis is time, and
        `CannotStream` where the body is no model of any length.
        """
        told = {name: index_of(model.source, name, axis) for name, axis in model.axes.items()}
        source = _clip(model.source, told, self.frames)
        cuts = [
            _Cut(source, make_length_dynamic(source, axes))
            for axes in ([told] if told else readings(source, {}, set()))
        ]
        possible = cuts if told else [cut for cut in cuts if cut.streams()]
        if len(possible) != 1:
            lines = [" ".join(f"--axis {name}={axis}" for name, axis in cut.axes.items()) for cut in possible or cuts]
            raise AmbiguousAxis(
                "--head window: it can be read in more than one way which axis is time; choose one of\n  "
                + "\n  ".join(lines),
                tuple(lines),
            )
        (cut,) = possible
        if self.frames not in (None, cut.frames):
            raise UsageError(f"--head window={self.frames}: the model was exported for {cut.frames} frames")
        body, head = cut.parts()
        made = Prepared(body.source, body.axes, model.notes, head=head)
        return replace(made, notes=replace(made.notes, fixed_length=body.told())) if body.changes else made


def _clip(source: Source, told: dict[str, int], frames: int | None) -> Source:
    """`source` with so many frames on stream axes of any length; `told` gets that axis where there is but one."""
    free = dynamic(source)
    if not told and len(free) == 1:
        told.update(free)
    if not free or (told and not set(told.items()) & set(free)):
        return source
    if frames is None:
        raise UsageError(
            "--head window: the model takes any length, so it does not say how many frames a window has; write "
            "--head window=FRAMES"
        )
    if not told:
        raise UsageError(f"--head window={frames}: name the axis that has these frames, with --axis INPUT=AXIS")
    model, plan = source.model.clone(), analyze(source, told, Options())
    for value in model.graph.inputs:
        axis, fact = told.get(value.name or ""), plan.facts.get(value.name or "")
        if axis is not None and (value.name, axis) in free and value.shape is not None and isinstance(fact, Stream):
            count = frames * fact.rate
            if count.denominator != 1:
                raise UsageError(
                    f"--head window={frames}: input {value.name} has {fact.rate} frames for one base frame, which "
                    "gives no whole number of them"
                )
            value.shape = ir.Shape([int(count) if k == axis else d for k, d in enumerate(value.shape)])
    return replace(source, model=model)


class _Cut:
    """The cut through a model that its reading at any length shows."""

    def __init__(self, source: Source, found: DynamicLength):
        self.source, self.axes, self.frames = source, found.axes, found.frames
        self.graph = source.model.graph
        self.facts = found.plan.facts
        self.made = {out.name: node for node in self.graph for out in node.outputs if out.name}
        self.moving = _moving(found.plan)
        self.head: set[str] = set()
        self.grow(set())

    def streams(self) -> bool:
        """Whether anything is left for the body to compute."""
        return any(
            isinstance(self.facts.get(out.name or ""), Stream)
            for node in self.graph
            if node.name not in self.head
            for out in node.outputs
        )

    def grow(self, more: set[str]) -> None:
        """The head with nodes `more`, and all that must then be in it."""
        self.head |= more | {
            n.name or ""
            for n in self.graph
            if not all(self._same_in_every_window(self.facts.get(o.name)) for o in n.outputs if o.name)
        }
        before = -1
        while before < len(self.head):
            before = len(self.head)
            late: set[str] = set()
            for node in self.graph:
                if node.name in self.head or any(name in late for name in _reads(node)):
                    late |= {out.name for out in node.outputs if out.name}
                    if not self._neutral(node):
                        self.head.add(node.name or "")
            windows = self.frontier()
            for wire in windows:
                if wire in self.made and (not _plain(self.facts[wire]) or self._moved(self.made[wire], windows)):
                    self.head.add(self.made[wire].name or "")

    def frontier(self) -> list[str]:
        """The streams that the head reads, in the order of the graph."""
        found: dict[str, None] = {}
        todo = [
            name
            for node in self.graph
            if node.name in self.head
            for name in _reads(node)
            if self._target(node, name) is None
        ]
        todo += [v.name or "" for v in self.graph.outputs if self._late(v.name or "")]
        seen: set[str] = set()
        while todo:
            name = todo.pop(0)
            node = self.made.get(name)
            if name in seen or (node is not None and node.name in self.head) or name in self.graph.initializers:
                continue
            seen.add(name)
            fact = self.facts[name]
            if not isinstance(fact, (Static, ShapeTensor)):
                found[name] = None
            elif node is not None and self.number(fact) is None:
                todo += _reads(node)
        order = {v.name: k for k, v in enumerate(self.source.inputs)} | {
            name: k + len(self.source.inputs) for k, name in enumerate(self.made)
        }
        return sorted(found, key=lambda name: order[name])

    def number(self, fact: Fact) -> Array | None:
        """The value of a wire of the body that is the same in every window; None where it is not known."""
        if isinstance(fact, Static):
            return None if fact.value is None else fact.value.array
        if isinstance(fact, ShapeTensor) and all(v.symbols() <= {TIME} for v in fact.values):
            return np.asarray([v.at(self.frames) for v in fact.values], fact.dtype.numpy()).reshape(fact.shape)
        return None

    def _target(self, node: ir.Node, name: str) -> Array | None:
        """The shape `name` that a Reshape reads, where all of it but the batch is known."""
        fact = self.facts.get(name)
        if (
            not has(node, Trait.RESHAPES)
            or not isinstance(fact, ShapeTensor)
            or node.inputs[1] is None
            or node.inputs[1].name != name
        ):
            return None
        data = self.facts.get(node.inputs[0].name or "") if node.inputs[0] is not None else None
        return target_of(data.shape if isinstance(data, (Static, Stream)) else None, fact.values, self.frames)

    def parts(self) -> tuple[DynamicLength, Head]:
        """Both parts; where the body turns out not to be a model of any length, its node goes to the head too."""
        while True:
            windows = self.frontier()
            if not self.head:
                raise UsageError("--head window: this model streams frame by frame without it")
            body = checked(*self._body(windows))
            nodes = {n.name for n in self.graph} - self.head
            stuck = {b.node for b in body.plan.blockers}
            if not stuck:
                outputs = tuple(v.name or "" for v in self.graph.outputs)
                found = {wire: fact for wire in windows if isinstance(fact := body.plan.facts[wire], Stream)}
                return body, Head(self._head(windows), found, outputs, self.frames)
            if not stuck <= nodes:
                raise CannotStream(body.plan.blockers, body.axes)
            self.grow(stuck)

    def _late(self, output: str) -> bool:
        """Whether an output of the model needs the head; it also tells the sizes of a clip."""
        if isinstance(self.facts.get(output), ShapeTensor):
            return True
        stack, seen = [output], set()
        while stack:
            node = self.made.get(stack.pop())
            if node is None or node.name in seen:
                continue
            if node.name in self.head:
                return True
            seen.add(node.name)
            if self._neutral(node):
                stack += _reads(node)
        return False

    def _body(self, windows: list[str]) -> tuple[Source, DynamicLength]:
        model = self.source.model.clone()
        graph = model.graph
        values = {v.name: v for node in graph for v in node.outputs if v.name}
        own = [v.name or "" for v in graph.outputs if not self._late(v.name or "")]
        graph.outputs[:] = [values[name] for name in dict.fromkeys([*own, *windows]) if name in values]
        for value in graph.outputs:
            fact = self.facts[value.name or ""]
            assert isinstance(fact, (Static, Stream))
            value.type, value.shape = ir.TensorType(fact.dtype), None
        _prune(model)
        source = replace(self.source, model=model)
        return source, make_length_dynamic(source, self.axes)

    def _head(self, windows: list[str]) -> Source:
        model = self.source.model.clone()
        graph = model.graph
        values = {v.name: v for v in graph.inputs} | {v.name: v for node in graph for v in node.outputs if v.name}
        graph.outputs[:] = [v for v in graph.outputs if self._late(v.name or "")]
        inputs, own, editor = [], {n.name: n for n in graph}, GraphEditor(graph)
        for wire in windows:
            fact = self.facts[wire]
            assert isinstance(fact, Stream)
            shape = ir.Shape([self._dim(d) for d in fact.shape])
            inputs.append(ir.Value(name=window_of(wire), shape=shape, type=ir.TensorType(fact.dtype)))
            ir.convenience.replace_all_uses_with(values[wire], inputs[-1])
        for node in [n for n in self.graph if n.name in self.head]:
            for name in dict.fromkeys(_reads(node)):
                target = self._target(node, name)
                if target is not None:
                    own[node.name].replace_input_with(1, editor.named(f"{node.name}#target", target))
                elif (
                    name in self.made
                    and self.made[name].name not in self.head
                    and (known := self.number(self.facts[name])) is not None
                ):
                    ir.convenience.replace_all_uses_with(values[name], editor.named(f"{name}#known", known))
        graph.inputs[:] = [*inputs, *(v for v in graph.inputs if v.name not in self.axes)]
        _prune(model)
        return replace(self.source, model=model)

    def _dim(self, d: Length) -> int | str:
        return d.at(self.frames) if d.symbols() <= {TIME} else str(d)

    def _moved(self, node: ir.Node, windows: list[str]) -> bool:
        """Whether a node has nothing but frames that the head reads already, in another order.

        A head rather does it again than remember them twice.
        """
        return has(node, Trait.SAME_ORDER, Trait.PERMUTES) and all(
            name in windows for name in _reads(node) if not isinstance(self.facts[name], (Static, ShapeTensor))
        )

    def _neutral(self, node: ir.Node) -> bool:
        """Whether it computes only shapes and what does not depend on the stream: the body and the head may both
        have it.
        """
        return all(isinstance(self.facts.get(out.name), (Static, ShapeTensor)) for out in node.outputs if out.name)

    def _same_in_every_window(self, fact: Fact | None) -> bool:
        if isinstance(fact, Stream):
            return fact.reach.past is not None and fact.wire not in self.moving
        return isinstance(fact, (Static, ShapeTensor))


def target_of(shape: Shape | None, wanted: Sequence[Length], frames: int) -> Array | None:
    """A target shape in numbers, with -1 for the only dimension that follows the batch; None where that is not so.

    `shape`: that of what is reshaped, where it is known; lengths are those of `frames` base frames.
    """

    def number(d: Length) -> int:
        return d.evaluate(dict.fromkeys(d.symbols(), OTHER_LENGTH) | {TIME: frames})

    sizes = [number(d) for d in wanted]
    if shape is None and min(sizes) < 1:
        return None
    if shape is not None:
        sizes = [number(shape[k]) if n == 0 and k < len(shape) else n for k, n in enumerate(sizes)]
        whole, rest = math.prod(map(number, shape)), math.prod(n for n in sizes if n != -1)
        if not rest or whole % rest:
            return None
        sizes = [whole // rest if n == -1 else n for n in sizes]
    free = [n % OTHER_LENGTH == 0 for n in sizes]
    return np.asarray([-1 if follows else n for follows, n in zip(free, sizes)], np.int64) if sum(free) < 2 else None


def _moving(plan: Plan) -> set[str]:
    """Wires whose frames follow from more than a window of the inputs: from where they are in the stream, or from
    what came before.
    """
    moving: set[str] = set()
    for step in plan.steps:
        if step.states or any(
            isinstance(leaf, (Position, Offset, Start, Count, Past, QueryKeyRead))
            or (isinstance(leaf, (Window, Ref)) and leaf.wire in moving)
            for leaf in leaves(step)
        ):
            moving |= set(step.wires)
    return moving


def _plain(fact: Fact) -> bool:
    """Whether all frames of a stream come over its wire, in order."""
    return (
        isinstance(fact, Stream)
        and fact.border is None
        and not fact.pad_before
        and not fact.pad_after.terms
        and fact.origin is None
        and not fact.merged
    )


def _prune(model: ir.Model) -> None:
    """Remove what no output needs; a node that goes must not keep what its subgraphs read."""
    wanted = {v.name for v in model.graph.outputs}
    for node in reversed(list(model.graph)):
        if any(out.name in wanted for out in node.outputs if out.name):
            wanted.update(_reads(node))
            continue
        for inner in (n for graph in subgraphs(node.attributes.values()) for n in all_nodes(graph)):
            for k in range(len(inner.inputs)):
                inner.replace_input_with(k, None)
    common.RemoveUnusedNodesPass()(model)


def _reads(node: ir.Node) -> Iterator[str]:
    yield from (v.name for v in node.inputs if v is not None and v.name)
    for inner in subgraphs(node.attributes.values()):
        yield from sorted(outer_names(inner))


__all__ = ["SplitHead", "target_of"]
