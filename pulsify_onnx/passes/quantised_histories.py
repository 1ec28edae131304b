"""Histories on the narrow side of an operator: what its rule says to `undo` is remembered as what it is computed from.

A history behind a DequantizeLinear is four times as large as one of integers, and stands between it and its reader,
where runtimes look for the two side by side to compute in integers. So a reader dequantises a window of the integers
instead, whose frames that are not real are those that become the border it sees: for zeros, the zero point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.facts import Mirror, Padding, PaddingFrames, Static, Stream
from pulsify_onnx.algebra.hidden import Mask, TimedMask
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.padding_fold import fold_border
from pulsify_onnx.algebra.plan import Expr, Frames, Plan, QueryKeyRead, Ref, State, Step, Window, leaves, rebuilt
from pulsify_onnx.arrays import Array, Const
from pulsify_onnx.model.load import Source
from pulsify_onnx.model.schema import has_attribute

STORED = {ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16, ir.DataType.INT32}
"""Types that a history may be of: others can't be concatenated in the opset that a model may have."""


@dataclass(frozen=True)
class _Deferred:
    """A step that its readers compute on a window of `window`'s wire."""

    step: Step
    window: Window
    x: Stream
    y: Stream


def quantised_histories(plan: Plan, source: Source) -> Plan:
    """`plan` with every history before the steps that can be undone, where that is exact."""
    narrowed = _narrowed(plan, source)
    found = _deferred(narrowed)
    # Where a QuantizeLinear has a type of its own, onnxruntime makes new ones, with that of signed integers, before it
    # makes these unsigned, and does not load what it has made then; so it is given none that it would change.
    typed = has_attribute("QuantizeLinear", source.opset, "output_dtype")
    if typed or any(d.x.dtype == ir.DataType.INT8 for d in found.values()):
        plan = _unsigned(plan, source)
        narrowed = _narrowed(plan, source)
        found = _deferred(narrowed)
    if not found:
        return plan
    reader = _Reader(narrowed, source, found)
    steps = (reader.rewritten(step) for step in narrowed.steps)
    return replace(
        narrowed, steps=tuple(replace(step, deferred=True) if step.wires[0] in found else step for step in steps)
    )


def _narrowed(plan: Plan, source: Source) -> Plan:
    """`plan` with every border that is made solid made so before the step that can be undone."""
    steps: list[Step] = []
    wires = dict(plan.wires)
    plan = replace(plan, wires=wires)
    producers: dict[str, Step] = {}
    for step in plan.steps:
        w, y = step.exprs[0] if step.exprs else None, step.facts[0] if step.facts else None
        maker = producers.get(w.wire) if isinstance(w, Window) and isinstance(y, Stream) and not step.history else None
        parts = _parts(maker, plan, producers) if maker is not None else None
        if (
            isinstance(w, Window)
            and isinstance(y, Stream)
            and maker is not None
            and maker.undo is not None
            and parts is not None
        ):
            inner = _Reader(plan, source, {w.wire: _Deferred(maker, *parts)}).inner(w)
            if inner is not None:
                narrow = replace(y, wire=f"{y.wire}#narrow", dtype=parts[1].dtype, border=None)
                wires[narrow.wire] = narrow
                steps.append(Step(step.node, step.op_type, (narrow.wire,), (inner,), (narrow,)))
                whole = Window(narrow.wire, 0, Frames(y.rate))
                step = replace(
                    step, exprs=(_on(maker.exprs[0], whole),), undo=_on(maker.undo, replace(whole, wire=y.wire))
                )
        steps.append(step)
        producers.update(dict.fromkeys(step.wires, step))
    return replace(plan, steps=tuple(steps))


def _deferred(plan: Plan) -> dict[str, _Deferred]:
    """Steps to be computed where they are read, by wire: those of which some reader needs other frames than those of
    this pulse.
    """
    asked = {
        leaf.wire
        for step in plan.steps
        for leaf in leaves(step)
        if isinstance(leaf, Window) and (int(leaf.back) or int(leaf.frames.extra) or leaf.mask is not None)
    }
    producers = plan.producer()
    return {
        step.wires[0]: _Deferred(step, *parts)
        for step in plan.steps
        if len(step.wires) == 1 and step.wires[0] in asked and (parts := _parts(step, plan, producers)) is not None
    }


def _unsigned(plan: Plan, source: Source) -> Plan:
    """`plan` with signed integers carried unsigned where onnxruntime does so on x86, which computes with unsigned ones
    only.

    It rewrites those of a QuantizeLinear and of the one DequantizeLinear that reads it, side by side and for one
    reader: not those with a history between them. Those of several readers stay signed there, so they do here.
    """
    readers: dict[str, list[Step]] = {}
    for step in plan.steps:
        for wire in {leaf.wire for leaf in leaves(step) if isinstance(leaf, (Window, Ref, QueryKeyRead))}:
            readers.setdefault(wire, []).append(step)
    left = {*plan.inputs, *(plan.facts[name].wire for name in plan.outputs)}
    values = {v.name: v for node in source.model.graph for v in node.outputs}
    free = set()
    for step in plan.steps:
        for wire in step.wires if step.unsigned is not None and step.undo is None else ():
            found = [values.get(name) for r in readers.get(wire, ()) for name in r.wires]
            both = all(r.unsigned is not None and r.undo is not None for r in readers.get(wire, ()))
            if (
                both
                and wire not in left
                and sum(len(v.uses()) + v.is_graph_output() for v in found if v is not None) == 1
            ):
                free.add(wire)
    wires = {w: _shifted(f) if w in free and isinstance(f, Stream) else f for w, f in plan.wires.items()}

    def changed(step: Step) -> Step:
        read = {leaf.wire for leaf in leaves(step) if isinstance(leaf, Window)}
        if step.unsigned is None or not (free & {*step.wires} if step.undo is None else read <= free):
            return step
        return replace(
            step, exprs=(step.unsigned.expr,), facts=tuple(wires[w] for w in step.wires), undo=step.unsigned.undo
        )

    return replace(plan, wires=wires, steps=tuple(map(changed, plan.steps)))


def _shifted(x: Stream) -> Stream:
    return replace(x, dtype=ir.DataType.UINT8, border=None)


def _parts(step: Step, plan: Plan, producers: Mapping[str, Step]) -> tuple[Window, Stream, Stream] | None:
    """The only window of a step that may be computed where it is read, its wire, and what is computed; None for
    others.
    """
    if step.undo is None or len(step.wires) != 1 or step.states or step.carries or step.history:
        return None
    windows = [leaf for leaf in leaves(step) if isinstance(leaf, Window)]
    y = plan.wires[step.wires[0]]
    if len(windows) != 1 or not isinstance(y, Stream):
        return None
    x, (window,) = plan.wires[windows[0].wire], windows
    producer = producers.get(window.wire)
    if not isinstance(x, Stream) or x.dtype not in STORED or x.positional or y.positional or x.merged or y.merged:
        return None
    if (
        window.mask is not None
        or window.frames != Frames(x.rate)
        or x.rate != y.rate
        or x.axis != y.axis
        or (producer is not None and producer.history)
    ):
        return None
    return window, x, y


class _Reader:
    """Rewrites the windows of readers."""

    def __init__(self, plan: Plan, source: Source, found: Mapping[str, _Deferred]):
        self.plan, self.source, self.found = plan, source, found
        self.borders: dict[tuple[str, Padding], Const | PaddingFrames | None] = {}

    def rewritten(self, step: Step) -> Step:
        """`step` on windows of what was undone."""
        if not any(isinstance(leaf, Window) and leaf.wire in self.found for leaf in leaves(step)):
            return step
        states = tuple(self._state(state) for state in step.states)
        return replace(step, exprs=tuple(self._expr(e) for e in step.exprs), states=states)

    def _state(self, state: State) -> State:
        return replace(state, next=self._expr(state.next))

    def _expr(self, expr: Expr) -> Expr:
        return _replaced(expr, lambda w: self._window(w) if w.wire in self.found else w)

    def _window(self, w: Window) -> Expr:
        inner = self.inner(w)
        if inner is None:
            return replace(w, mask=_explicit(w))
        return w if inner.mask is None else _on(self.found[w.wire].step.exprs[0], inner)

    def inner(self, w: Window) -> Window | None:
        """The window on what is undone from which all that `w` sees is computed; None where its border comes from
        nothing there.
        """
        border, deferred = w.mask.border if w.mask is not None else w.border, self.found[w.wire]
        narrow = border if border is None or isinstance(border, Mirror) else self._narrow(deferred, border)
        if border is not None and narrow is None:
            return None
        own, mask = deferred.window, None
        # without a mask, nothing is read as the border, or it is the zeros with which a history begins
        if narrow is not None and (w.mask is not None or (_zeros(border) and not _zeros(narrow))):
            mask = _mask(_timed(w), int(own.back), narrow)
        return Window(own.wire, own.back + w.back, w.frames, mask, narrow, w.role)

    def _narrow(self, deferred: _Deferred, border: Const | PaddingFrames) -> Padding | None:
        """What becomes exactly `border`; None where there is nothing that does."""
        step = deferred.step
        key = (step.wires[0], border)
        if key not in self.borders:
            assert step.undo is not None
            undone = self._folded(_replaced(step.undo, lambda w: replace(w, border=border)), deferred.x, border)
            again = (
                self._folded(_replaced(step.exprs[0], lambda w: replace(w, border=undone)), deferred.y, border)
                if undone is not None
                else None
            )
            same = again is not None and (np.subtract(_frames(again), _frames(border)) == 0).all()
            self.borders[key] = undone if same else None
        return self.borders[key]

    def _folded(self, expr: Expr, like: Stream, border: Const | PaddingFrames) -> Const | PaddingFrames | None:
        bare = replace(like, pad_before=_frames(border).shape[like.axis], pad_after=Length(()), border=None)
        found = fold_border(expr, bare, self.plan.wires.__getitem__, self._value, self.source.opset)
        return (
            found if isinstance(found, (Const, PaddingFrames)) and _frames(found).dtype == like.dtype.numpy() else None
        )

    def _value(self, wire: str) -> Const | None:
        fact = self.plan.facts.get(wire)
        if isinstance(fact, Static) and fact.value is not None:
            return fact.value
        array = self.source.constant(wire)
        return None if array is None else Const(array)


def _replaced(expr: Expr, change: Callable[[Window], Expr]) -> Expr:
    """`expr` with other expressions for its windows."""
    if isinstance(expr, Window):
        return change(expr)
    return rebuilt(expr, lambda e: _replaced(e, change))


def _on(expr: Expr, window: Window) -> Expr:
    return _replaced(expr, lambda _: window)


def _mask(mask: TimedMask | None, back: int, border: Padding) -> TimedMask:
    """`mask` for a wire on which everything comes `back` frames earlier, and frames before the first are no zeros by
    themselves.
    """
    if mask is None:
        return TimedMask(0, Length(()), border, start=False, end=False, arrival=True)
    return replace(mask, low=mask.low - back, high=mask.high - back, border=border, start=_tested(mask))


def _explicit(w: Window) -> TimedMask | None:
    """The mask of a window that is computed from others, so that no history of it begins as zeros."""
    mask = _timed(w)
    if mask is not None:
        return replace(mask, start=_tested(mask) or mask.arrival, arrival=False)
    return (
        TimedMask(0, Length(()), w.border, start=True, end=False, arrival=False)
        if w.border is not None and _zeros(w.border)
        else None
    )


def _timed(w: Window) -> TimedMask | None:
    assert not isinstance(w.mask, Mask), "the plan is not scheduled"
    return w.mask


def _tested(mask: TimedMask) -> bool:
    """Whether the start is tested where frames before the first are no zeros; a history of masked frames begins with
    the border.
    """
    return mask.start or (not mask.arrival and _zeros(mask.border))


def _frames(border: Const | PaddingFrames) -> Array:
    return border.array if isinstance(border, Const) else border.frames.array


def _zeros(border: Padding | None) -> bool:
    return isinstance(border, Const) and not border.array.any()
