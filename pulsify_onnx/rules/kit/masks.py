"""Which keys a mask leaves open: established by evaluating the mask's own subgraph on frame indices.

A mask is a function of positions, so it is computed on whole matrices of several lengths and far from the start. It is
taken for a band (or chunks) only if the open keys stay within the same distance of their query at every one of these
lengths and places, and every query sees a key; else it is refused. A score counts as masked at or below `MASKED`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pulsify_onnx.algebra import evaluate
from pulsify_onnx.algebra.delay import Delay, DelayLike
from pulsify_onnx.algebra.facts import Band, QueryKey, Stream
from pulsify_onnx.algebra.plan import Dims, Expr, Frames, Op, Position, QueryKeyRead, Ref, When, Window, walk
from pulsify_onnx.arrays import Array, Const
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.kit.node import Context

MASKED = -9000.0
"""A masked score: minus infinity, or so low that float32 and float16 softmax give exactly 0 (scores are far
smaller).
"""

LENGTHS = (24, 48, 96, 192, 384, 768, 1536, 3072)
FAR_FRAME = 1_000_000
"""About where a mask is looked at again, far from the start."""

UNBOUNDED = (
    f"attention over the whole past, or over more than {LENGTHS[-1] // 3} frames of it: what it must "
    "remember grows with the stream"
)
UNBOUNDED_HINT = "train with a left context (a band or chunk mask), or cut it to the last frames with --left-context"


class Unknown(Exception):
    """A value that is not known from positions alone."""


@dataclass(frozen=True)
class Sides:
    """Frames before the first one (negative: after it) at which either side is evaluated, and how many more than
    asked for.
    """

    a: DelayLike
    b: DelayLike
    more: tuple[int, int] = (0, 0)


def _number(frames: DelayLike) -> int:
    """A number of frames that does not depend on when; raises `Unknown` for others."""
    found = Delay.of(frames)
    if found.terms:
        raise Unknown
    return found.constant


class Positions:
    """Evaluates expressions on `frames` consecutive frames of either side, without any stream."""

    def __init__(self, world: Context, opset: int, frames: int):
        self.world, self.opset, self.frames = world, opset, frames
        self.memo: dict[object, Array] = {}

    def value(self, expr: Expr | None, at: Sides) -> Array | None:
        """The value of `expr`; raises `Unknown` where it depends on data."""
        if expr is None:
            return None
        key = (expr, at)
        if key not in self.memo:
            self.memo[key] = self._value(expr, at)
        return self.memo[key]

    def _value(self, expr: Expr, at: Sides) -> Array:
        if isinstance(expr, Const):
            return expr.array
        if isinstance(expr, Ref):
            const = self.world.value_of(expr.wire)
            if const is None:
                raise Unknown
            return const.array
        if isinstance(expr, Position):
            back = at.b if expr.role else at.a
            return np.arange(self.frames + _number(expr.extra) + at.more[expr.role], dtype=np.int64) - _number(
                back + expr.delay
            )
        if isinstance(expr, Dims):
            return np.asarray(
                [
                    self.frames + _number(d.extra) + at.more[d.role]
                    if isinstance(d, Frames)
                    else d
                    if isinstance(d, int)
                    else 1
                    for d in expr.dims
                ],
                np.int64,
            )
        if isinstance(expr, Window):
            fact = self.world.fact_of(expr.wire)
            if not isinstance(fact, Stream) or not fact.positional or fact.origin is not None or expr.mask is not None:
                raise Unknown
            back = (at.b if expr.role else at.a) + expr.back
            return self.of(expr.wire, Sides(back, back, (at.more[expr.role],) * 2))
        if isinstance(expr, QueryKeyRead):
            fact = self.world.fact_of(expr.wire)
            if not isinstance(fact, QueryKey) or not fact.positional:
                raise Unknown
            return self.of(expr.wire, sides_inside(expr, at))
        if isinstance(expr, Op):
            inputs = [self.value(e, at) for e in expr.inputs]
            found = evaluate.evaluate(
                expr.op_type, inputs, dict(expr.attributes), opset=self.opset, domain=expr.domain, outputs=expr.outputs
            )
            if found is None:
                raise Unknown
            return found[expr.index]
        raise Unknown

    def of(self, wire: str, at: Sides) -> Array:
        """The value of a positional wire."""
        step = self.world.step_of(wire)
        if step is None:
            raise Unknown
        found = self.value(step.exprs[step.wires.index(wire)], at)
        assert found is not None
        return found


def sides_inside(grid: QueryKeyRead, at: Sides) -> Sides:
    """Where the pair of a `Grid` is evaluated when its reader is at `at`."""
    a, b = at.a + grid.a[0], at.b + grid.b[0]
    return Sides(b, a, at.more[::-1]) if grid.swapped else Sides(a, b, at.more)


Range = tuple[Array, Array]
"""The least and the greatest value that is possible, broadcastable to the shape of an expression."""

DATA: Range = (np.zeros((), np.float32), np.zeros((), np.float32))
"""What a value of the stream counts as: small beside what masks."""

ANYTHING: Range = (np.full((), -np.inf, np.float32), np.full((), np.inf, np.float32))


class Scores:
    """Ranges of scores: data counts as 0, what is masked is far below."""

    def __init__(self, positions: Positions):
        self.positions = positions

    def bound(self, expr: Expr | None, at: Sides) -> Array:
        """An upper bound of `expr`."""
        return self.range(expr, at)[1]

    def range(self, expr: Expr | None, at: Sides) -> Range:
        """Bounds of `expr`."""
        try:
            value = self.positions.value(expr, at)
            found = np.asarray(value, np.float32) if value is not None else np.zeros((), np.float32)
            return found, found
        except Unknown:
            pass
        if isinstance(expr, QueryKeyRead):
            step = self.positions.world.step_of(expr.wire)
            if step is not None:
                return self.range(step.exprs[step.wires.index(expr.wire)], sides_inside(expr, at))
        if isinstance(expr, When):
            (a, b), (c, d) = self.range(expr.yes, at), self.range(expr.no, at)
            return np.minimum(a, c), np.maximum(b, d)
        if isinstance(expr, Op) and (expr.domain, expr.op_type) in _RANGES:
            with np.errstate(invalid="ignore", over="ignore"):
                low, high = _RANGES[expr.domain, expr.op_type](self, expr, at)
            return _known(low, -np.inf), _known(high, np.inf)
        if isinstance(expr, Op) and any(
            low.any() or high.any()
            for low, high in (self.range(e, at) for e in expr.inputs if isinstance(e, (Op, QueryKeyRead)))
        ):
            return ANYTHING
        return DATA

    def truth(self, expr: Expr | None, at: Sides) -> tuple[Array, Array]:
        """(surely true, surely false) of a condition."""
        try:
            value = np.asarray(self.positions.value(expr, at), bool)
            return value, ~value
        except Unknown:
            pass
        if isinstance(expr, QueryKeyRead):
            step = self.positions.world.step_of(expr.wire)
            if step is not None:
                return self.truth(step.exprs[step.wires.index(expr.wire)], sides_inside(expr, at))
        if isinstance(expr, When):
            (a, b), (c, d) = self.truth(expr.yes, at), self.truth(expr.no, at)
            return a & c, b & d
        if isinstance(expr, Op):
            if expr.op_type == "Not":
                return self.truth(expr.inputs[0], at)[::-1]
            if expr.op_type in ("And", "Or"):
                (at_, af), (bt, bf) = (self.truth(e, at) for e in expr.inputs)
                return (at_ & bt, af | bf) if expr.op_type == "And" else (at_ | bt, af & bf)
            if expr.op_type in ("Cast", "Unsqueeze", "Reshape", "Expand") and not isinstance(expr.inputs[0], Const):
                found = self._moved(expr, self.truth(expr.inputs[0], at), at)
                if found is not None:
                    return found
        never = np.zeros((), bool)
        return never, never

    def _moved(self, expr: Op, both: tuple[Array, Array], at: Sides) -> tuple[Array, Array] | None:
        if expr.op_type == "Cast" or both[0].ndim == 0:
            return both
        try:
            rest = [self.positions.value(e, at) for e in expr.inputs[1:]]
        except Unknown:
            return None
        moved = [
            evaluate.evaluate(expr.op_type, [b, *rest], dict(expr.attributes), opset=self.positions.opset) for b in both
        ]
        return None if moved[0] is None or moved[1] is None else (moved[0][0], moved[1][0])


def _known(bound: Array, unknown: float) -> Array:
    """A bound, `unknown` where it came to nothing (the difference of two infinities)."""
    nothing = np.isnan(bound)
    return np.where(nothing, np.float32(unknown), bound) if nothing.any() else bound


def _where(s: Scores, e: Op, at: Sides) -> Range:
    true, false = s.truth(e.inputs[0], at)
    (a, b), (c, d) = s.range(e.inputs[1], at), s.range(e.inputs[2], at)
    return np.where(true, a, np.where(false, c, np.minimum(a, c))), np.where(
        true, b, np.where(false, d, np.maximum(b, d))
    )


def _products(s: Scores, e: Op, at: Sides) -> Range:
    for x, factor in ((0, 1), (1, 0)):
        if e.op_type == "Div" and x == 1:
            break
        try:
            by = np.asarray(s.positions.value(e.inputs[factor], at), np.float32)
        except Unknown:
            continue
        low, high = s.range(e.inputs[x], at)
        if e.op_type == "Div" and not by.all():
            return ANYTHING
        ends = (low / by, high / by) if e.op_type == "Div" else (low * by, high * by)
        return np.minimum(*ends), np.maximum(*ends)
    pure = all(not low.any() and not high.any() for low, high in (s.range(x, at) for x in e.inputs))
    return DATA if pure else ANYTHING


def _sum(s: Scores, e: Op, at: Sides) -> Range:
    ends = [s.range(x, at) for x in e.inputs]
    return sum((low for low, _ in ends[1:]), start=ends[0][0]), sum((high for _, high in ends[1:]), start=ends[0][1])


def _difference(s: Scores, e: Op, at: Sides) -> Range:
    (a, b), (c, d) = s.range(e.inputs[0], at), s.range(e.inputs[1], at)
    return a - d, b - c


def _negative(s: Scores, e: Op, at: Sides) -> Range:
    low, high = s.range(e.inputs[0], at)
    return -high, -low


def _extreme(s: Scores, e: Op, at: Sides) -> Range:
    choose = np.minimum if e.op_type == "Min" else np.maximum
    low, high = s.range(e.inputs[0], at)
    for x in e.inputs[1:]:
        more = s.range(x, at)
        low, high = choose(low, more[0]), choose(high, more[1])
    return low, high


def _cast(s: Scores, e: Op, at: Sides) -> Range:
    true, false = s.truth(e.inputs[0], at)
    if true.any() or false.any():
        return true.astype(np.float32), np.float32(1) - false
    return s.range(e.inputs[0], at)


def _moved_range(s: Scores, e: Op, at: Sides) -> Range:
    ends = s.range(e.inputs[0], at)
    if all(x.ndim == 0 for x in ends):
        return ends
    try:
        rest = [s.positions.value(x, at) for x in e.inputs[1:]]
    except Unknown:
        return ANYTHING
    full = np.broadcast_shapes(*(x.shape for x in ends))
    moved = [
        evaluate.evaluate(
            e.op_type,
            [np.ascontiguousarray(np.broadcast_to(x, full), np.float32), *rest],
            dict(e.attributes),
            opset=s.positions.opset,
        )
        for x in ends
    ]
    return (
        ANYTHING
        if moved[0] is None or moved[1] is None
        else (np.asarray(moved[0][0], np.float32), np.asarray(moved[1][0], np.float32))
    )


_RANGES: dict[tuple[str, str], Callable[[Scores, Op, Sides], Range]] = {
    ("", name): function
    for function, names in (
        (_where, "Where"),
        (_sum, "Add Sum"),
        (_difference, "Sub"),
        (_negative, "Neg"),
        (_products, "Mul Div"),
        (_extreme, "Min Max"),
        (_cast, "Cast"),
        (_moved_range, "Identity Unsqueeze Squeeze Reshape Expand Transpose"),
    )
    for name in names.split()
}


def band_of(
    pair: QueryKey, side: int, world: Context, opset: int, masked: Callable[[Scores, Expr, Sides], Array] | None = None
) -> Band:
    """The band of keys (along side `side` of `pair`) that a softmax over it can see; refuses what is not bounded."""
    previous: tuple[int, int] | None = None
    rows = _table_rows(pair.wire, world)
    for frames in [n for n in LENGTHS if rows is None or n <= rows] or [rows or 0]:
        spread = _spread(_open(pair, side, world, opset, frames, 0, masked))
        if spread is None:
            refuse(
                "some query sees no key at all, and then a softmax spreads over the whole stream",
                hint="let every frame see itself",
            )
        left, right = spread
        if previous == spread and max(left, right) * 3 < frames:
            break
        previous = spread
    else:
        if right * 3 >= frames:
            refuse(
                "attention over the whole stream: every frame needs the last",
                hint="train with a mask that hides the future (a band or chunks)",
            )
        refuse(UNBOUNDED, UNBOUNDED_HINT)
    near = _open(pair, side, world, opset, frames, 0, masked)
    band = _shaped(near, left, right, side)
    if rows is not None:  # positions are looked up in a table: beyond its end the batch model itself has no answer
        return band
    period = _period(near, left, right)
    far = _open(pair, side, world, opset, frames, FAR_FRAME // (period or 1) * (period or 1), masked)
    inner = slice(max(left, 0), frames - max(right, 0))
    if period is None or not (far[inner] == near[inner]).all():
        refuse(
            "which keys a query sees changes along the stream",
            hint="use a mask that is the same at every frame (a band or chunks)",
        )
    return band


def _open(
    pair: QueryKey,
    side: int,
    world: Context,
    opset: int,
    frames: int,
    first: int,
    masked: Callable[[Scores, Expr, Sides], Array] | None,
) -> Array:
    """Bool [query, key]: which keys are open for `frames` queries from `first` on, and as many keys, or as many more
    as there always are.
    """
    scores = Scores(Positions(world, opset, frames))
    ahead = max((pair.shape[pair.axes[side]] - pair.shape[pair.axes[1 - side]]).constant or 0, 0)
    more = (0, ahead) if side else (ahead, 0)
    at = Sides(-pair.delays[0] - first, -pair.delays[1] - first, more)
    step = world.step_of(pair.wire)
    assert step is not None
    expr = step.exprs[step.wires.index(pair.wire)]
    closed = masked(scores, expr, at) if masked is not None else scores.bound(expr, at) <= MASKED
    shape = [1] * len(pair.shape)
    shape[pair.axes[0]], shape[pair.axes[1]] = frames + more[0], frames + more[1]
    opened = ~np.broadcast_to(closed, np.broadcast_shapes(closed.shape, tuple(shape)))
    extra = opened.ndim - len(shape)
    others = tuple(k for k in range(opened.ndim) if k - extra not in pair.axes)
    seeing: Array = np.asarray(opened.any(axis=pair.axes[side] + extra, keepdims=True))
    matrix: Array = np.asarray(opened.any(axis=others)) & np.asarray(
        seeing.all(axis=others)
    )  # one head that sees nothing is enough to spread
    return matrix.T if side == 0 else matrix


def _period(opened: Array, left: int, right: int) -> int | None:
    """After how many queries the keys that are open, seen from the query, repeat; None where they do not."""
    queries = np.arange(max(left, 0), opened.shape[0] - max(right, 0))
    seen = opened[queries[:, None], queries[:, None] + np.arange(-left, right + 1)]
    for period in range(1, len(queries) // 2 + 1):
        if (seen[period:] == seen[:-period]).all():
            return period
    return None


def _spread(opened: Array) -> tuple[int, int] | None:
    if not opened.any(axis=1).all():
        return None
    query = np.arange(opened.shape[0])
    first = opened.argmax(axis=1)
    last = opened.shape[1] - 1 - opened[:, ::-1].argmax(axis=1)
    return int((query - first).max()), int((last - query).max())


def _shaped(opened: Array, left: int, right: int, side: int) -> Band:
    """Chunks where the right edge moves in steps, else a band."""
    n = opened.shape[0]
    last = opened.shape[1] - 1 - opened[:, ::-1].argmax(axis=1)
    inner = np.arange(n - max(right, 0))
    ahead = (last - np.arange(n))[inner]
    if (ahead == right).all() or not len(inner):
        return Band(left, right, side)
    jumps = np.flatnonzero(np.diff(last[inner])) + 1
    chunk = int(np.diff(jumps).max()) if len(jumps) > 1 else 0
    if chunk > 1:
        more = (int(last[0]) + 1) // chunk - 1
        band = Band(left, right, side, chunk, more)
        if all(band.last(int(q)) == last[q] for q in inner):
            return band
    return Band(left, right, side)


def _table_rows(wire: str, world: Context) -> int | None:
    """Rows of the smallest table that is looked up by position, None without one."""
    rows: list[int] = []
    seen: set[str] = set()
    todo = [wire]
    while todo:
        name = todo.pop()
        step, fact = world.step_of(name), world.fact_of(name)
        if (
            name in seen
            or step is None
            or not (isinstance(fact, QueryKey) or (isinstance(fact, Stream) and fact.positional))
        ):
            continue
        seen.add(name)
        for expr in walk(*step.exprs):
            index = expr.inputs[1] if isinstance(expr, Op) and expr.op_type == "Gather" else None
            if isinstance(expr, (Window, QueryKeyRead)):
                todo.append(expr.wire)
            elif isinstance(index, Op) and index.op_type == "Min" and isinstance(index.inputs[1], Const):
                rows.append(int(index.inputs[1].array) + 1)
    return min(rows, default=None)
