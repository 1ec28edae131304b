"""Which keys a mask leaves open: established by evaluating the mask's own subgraph on frame indices.

A mask is a function of positions, so it is computed on whole matrices of several lengths and far from the start. It is
taken for a band (or chunks) only if the open keys stay within the same distance of their query at every one of these
lengths and places, and every query sees a key; else it is refused. A score counts as masked at or below `MASKED`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pulsify_onnx.algebra.facts import Band, QueryKey, Stream
from pulsify_onnx.algebra.plan import Expr, Op, QueryKeyRead, Window, walk
from pulsify_onnx.arrays import Array, Const
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.kit.node import Context
from pulsify_onnx.rules.kit.positions import FAR_FRAME, Positions, Sides
from pulsify_onnx.rules.kit.scores import Scores

MASKED = -9000.0
"""A masked score: minus infinity, or so low that float32 and float16 softmax give exactly 0 (scores are far
smaller).
"""

LENGTHS = (24, 48, 96, 192, 384, 768, 1536, 3072)

UNBOUNDED = (
    f"attention over the whole past, or over more than {LENGTHS[-1] // 3} frames of it: what it must "
    "remember grows with the stream"
)
UNBOUNDED_HINT = "train with a left context (a band or chunk mask), or cut it to the last frames with --left-context"


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
