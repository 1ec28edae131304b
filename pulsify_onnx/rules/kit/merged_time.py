"""Streams with other axes merged with time ([B, T] as B*T): a rule sees one of their rows, and must treat all frames
alike.

What an operator makes of any number of frames without a state, a position or another frame, it makes of the frames of
all rows at once, whatever their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from pulsify_onnx.algebra.facts import ALONE, Fact, ShapeTensor, Static, Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Dim, Dims, Expr, Frames, Merged, Outcome, Ref, Step, Window, leaves, rebuilt
from pulsify_onnx.arrays import Const
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.kit.node import Context, Node

REASON = (
    "an axis was merged with time (batch and time as one dimension), so frames of one time lie far apart, and "
    "it does not treat all frames alike"
)
HINT = "split the merged axis again before this operator"
LEAVES = (
    "an axis is merged with time in it (batch and time as one dimension), so its frames can't be told apart "
    "pulse by pulse"
)
LEAVES_HINT = "split the merged axis again before the output ([B*T, C] to [B, T, C])"
MEETS = "it joins frames with frames of another order (an axis merged with time)"
MEETS_HINT = "split the merged axis again first"


def flattened(fact: Fact | None) -> bool:
    """Whether other axes are merged with the time of a stream."""
    return isinstance(fact, Stream) and fact.merged


def flattened_time(node: Node, run: Callable[[Node], Outcome]) -> Outcome:
    """What `run` makes of a node that has merged streams among its inputs."""
    return run(node) if node.op_type in ("Reshape", "Flatten") and node.domain == "" else _row_by_row(node, run)


def _row_by_row(node: Node, run: Callable[[Node], Outcome]) -> Outcome:
    """What `run` makes of the node for one row, for all rows at once. Refuses what does not treat all frames alike."""
    streams = node.streams
    model = next((x for x in streams if x.merged and not x.positional), next((x for x in streams if x.merged), None))
    if model is None or any(map(flattened, node.outer.values())):
        refuse(REASON, HINT)
    facts = [_row(fact, model, node.world) for fact in node.facts]
    outcome = run(replace(node, facts=tuple(facts)))
    rows = {f.wire: f for f in facts if isinstance(f, Stream)}
    if outcome.pulse_multiple > 1 or not all(alike(f, model, rows, outcome.steps) for f in outcome.facts if f.wire):
        refuse(REASON, HINT)
    steps: list[Step] = []
    for made in outcome.steps:
        if not all(alike(f, model, rows, outcome.steps) for f in made.facts) or not by_frame(made, rows):
            refuse(REASON, HINT)
        rows.update({f.wire: f for f in made.facts if isinstance(f, Stream)})
        exprs = tuple(_laid_out(e, model) for e in made.exprs)
        steps.append(replace(made, exprs=exprs, facts=tuple(_whole(f, model) for f in made.facts)))
    return Outcome(tuple(_whole(f, model) for f in outcome.facts), tuple(steps))


def _whole(fact: Fact, model: Stream) -> Fact:
    return replace(fact, around=model.around) if isinstance(fact, Stream) else fact


def _row(fact: Fact | None, model: Stream, world: Context) -> Fact | None:
    """What a row sees of an input."""
    if fact is None or isinstance(fact, Static):
        return fact
    if isinstance(fact, ShapeTensor):
        length = model.whole[model.axis]
        if any(v.moves and v != length for v in fact.values):
            refuse("it needs the length of the stream, and an axis is merged with time", HINT)
        return replace(fact, values=tuple(model.extent if v == length else v for v in fact.values))
    if not isinstance(fact, Stream):
        refuse(MEETS, MEETS_HINT)
    if fact.around != model.around:
        if not fact.positional or fact.whole[fact.axis] != model.whole[model.axis] or not constant_in_time(fact, world):
            refuse(MEETS, MEETS_HINT)
        fact = replace(
            fact, rate=model.rate, shape=(*fact.shape[: fact.axis], model.extent, *fact.shape[fact.axis + 1 :])
        )
    return replace(fact, around=ALONE)


def constant_in_time(x: Stream, world: Context) -> bool:
    """Whether a positional stream is the same in every frame."""
    todo = [x.wire]
    while todo:
        step = world.step_of(todo.pop())
        for leaf in leaves(step) if step is not None else ():
            if isinstance(leaf, Window) and leaf.mask is None:
                todo.append(leaf.wire)
            elif not isinstance(leaf, (Const, Ref, Dims)):
                return False
    return True


def alike(fact: Fact, model: Stream, rows: dict[str, Stream], steps: Iterable[Step]) -> bool:
    """Whether a result has the frames of its inputs, one for one."""
    if not isinstance(fact, Stream) or fact.rate != model.rate or fact.extent != model.extent:
        return False
    own = rows.get(fact.wire)
    if own is None or any(fact.wire in step.wires for step in steps):
        return True
    return (own.delay, own.pad_before, own.pad_after, own.border) == (
        fact.delay,
        fact.pad_before,
        fact.pad_after,
        fact.border,
    )


def by_frame(made: Step, rows: dict[str, Stream]) -> bool:
    """Whether every frame that a step computes follows from the same frame of what it reads."""
    if made.states or made.carries or made.history:
        return False
    delay = {f.delay for f in made.facts if isinstance(f, Stream)}
    rates = {f.rate for f in made.facts if isinstance(f, Stream)}
    for leaf in leaves(made):
        if isinstance(leaf, Window):
            if (
                leaf.wire not in rows
                or leaf.frames != Frames(rows[leaf.wire].rate)
                or delay != {rows[leaf.wire].delay + leaf.back}
            ):
                return False
        elif isinstance(leaf, Dims):
            if any(isinstance(d, Frames) and (d.extra or d.role or {d.rate} != rates) for d in leaf.dims):
                return False
        elif not isinstance(leaf, (Const, Ref)):
            return False
    return True


def _laid_out(expr: Expr, model: Stream) -> Expr:
    """An expression for one row as one for all of them."""
    if isinstance(expr, Dims):
        return Dims(
            tuple(Merged(model.around[0], d, model.around[1]) if isinstance(d, Frames) else d for d in expr.dims)
        )
    return rebuilt(expr, lambda e: _laid_out(e, model))


def dim(d: Length) -> Dim:
    """A dimension that time has no part in, in a pulse."""
    return d.constant if d.constant is not None else d
