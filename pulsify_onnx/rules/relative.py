"""Relative positions by a skew (Transformer-XL, Conformer): a table entry per offset of a key from its query.

The batch model lays the table out for its own length, from the farthest offset on, multiplies every query by all of it
and skews the product by a pad, a reshape and a slice, so that column `k` of row `q` holds offset ``k - q``. Here the
table is a positional wire of offsets, and the skew is done once on the offsets that occur between a window of queries
and one of keys.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np

from pulsify_onnx.algebra.facts import QueryKey, RelativeScores, Shape, ShapeTensor, Static, Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Dim, Dims, Expr, Frames, Offset, Outcome, QueryKeyRead, Ref, leaves
from pulsify_onnx.algebra.query_key import relative, unskewed
from pulsify_onnx.arrays import Const
from pulsify_onnx.errors import Blocker, Refusal, refuse
from pulsify_onnx.rules.arithmetic import ELEMENTWISE
from pulsify_onnx.rules.kit.combinators import as_outcome, const, onnx_op, same_op, static
from pulsify_onnx.rules.kit.infer import shape_of
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import RuleFunction
from pulsify_onnx.rules.kit.views import cuts, pads_of
from pulsify_onnx.rules.reshape import resolve
from pulsify_onnx.rules.slicing import rate_of

SKEWED = "it works on queries × relative positions before they are skewed to queries × keys"
SKEWED_HINT = (
    "skew them first: pad one position before the first, reshape, drop the first row, reshape, keep the first columns"
)
COUNTED = "it counts down from the length of the stream, so the first frame needs the last"
READ = "it reads a constant table from a place that depends on the length of the stream"
COUNTED_HINT = (
    "count positions from the first frame; only the relative shift of attention (pad, reshape, slice) "
    "may count from the end"
)
PASSES = ELEMENTWISE | {
    "Unsqueeze",
    "Squeeze",
    "Transpose",
    "Reshape",
    "Concat",
    "MatMul",
    "Gemm",
    "Einsum",
    "LayerNormalization",
    "Gather",
    "Slice",
    "Split",
    "Expand",
    "Dropout",
}
"""Operators that may work on a table of relative positions: they keep its entries apart."""


def applied(node: Node, rule: RuleFunction) -> Outcome | None:
    """What becomes of relative positions in a node of which `rule` keeps their entries apart; None where none are
    involved.
    """
    made = _counted(node) if node.op_type == "Range" else _laid_out(node) if node.op_type == "Slice" else None
    if made is not None:
        return made
    if any(isinstance(f, RelativeScores) for f in node.facts):
        how = _SKEWS.get(node.op_type) if node.domain == "" else None
        return how(node) if how is not None else refuse(SKEWED, SKEWED_HINT)
    tables = [f for f in node.facts if isinstance(f, Stream) and relative(f)]
    if not tables:
        return None
    if node.op_type not in PASSES or node.domain != "" or not all(f.positional for f in tables):
        _misused(node, tables[0])
    if node.op_type in ELEMENTWISE and any(isinstance(f, (Stream, QueryKey)) and not relative(f) for f in node.facts):
        _misused(node, tables[0])
    outcome = rule(node)
    for fact in outcome.facts:
        if not isinstance(fact, RelativeScores) and not (
            isinstance(fact, Stream)
            and fact.positional
            and fact.origin == tables[0].origin
            and fact.extent == tables[0].extent
        ):
            _misused(node, tables[0])
    return outcome


def _misused(node: Node, table: Stream) -> Outcome:
    """Refuse, and blame the node that counts from the end."""
    wires, seen = [table.wire], set()
    while wires:
        made = node.world.step_of(wires.pop())
        for leaf in leaves(made) if made is not None else ():
            if isinstance(leaf, Offset) and made is not None:
                reason = COUNTED if made.op_type == "Range" else READ
                raise Refusal(reason, COUNTED_HINT, Blocker(made.node, made.op_type, reason, COUNTED_HINT))
            if isinstance(leaf, (Ref, QueryKeyRead)) or not hasattr(leaf, "wire") or leaf.wire in seen:
                continue
            seen.add(leaf.wire)
            wires.append(leaf.wire)
    refuse(COUNTED, COUNTED_HINT)


def _origin(extent: Length, fixed: Callable[[Length], bool]) -> Length | None:
    """Where offset 0 lies in a table of `extent` entries: in its middle (2T - 1 entries, or 2T), or at its end (T)."""
    for half in ((extent - 1) * Fraction(1, 2), extent * Fraction(1, 2), extent - 1):
        if half.floor() == half and fixed(half):
            return half
    return None


def _table(node: Node, source: Static | ShapeTensor, shape: Shape, axis: int, origin: Length, expr: Expr) -> Outcome:
    rate = rate_of(origin + 1)
    return as_outcome(
        node, [expr], [Stream(node.outputs[0], source.dtype, shape, axis, 2 * rate, positional=True, origin=origin)]
    )


def _counted(node: Node) -> Outcome | None:
    """Range from a start that moves with the length: a table of offsets, one step each."""
    fact = node.facts[0]
    first, limit, stride = (
        (node.sizes(k, "a bound") for k in (0, 1, 2))
        if all(isinstance(f, (Static, ShapeTensor)) for f in node.facts)
        else (None,) * 3
    )
    if (
        not isinstance(fact, (Static, ShapeTensor))
        or not first
        or not limit
        or not stride
        or (not first[0].moves and first[0].ratio is not None)
    ):
        return None
    by = stride[0].ratio
    if not by:
        return None
    extent = ((limit[0] - first[0]) * (1 / by)).ceil()
    origin = _origin(extent, lambda o: (first[0] + o * by).ratio is not None)
    low = (first[0] + origin * by).ratio if origin is not None else None
    if origin is None or low is None:
        return None
    kind = fact.dtype.numpy()
    number = [Const(np.asarray(float(v) if kind.kind == "f" else int(v), kind)) for v in (by, low)]
    expr: Expr = Offset(rate_of(origin + 1))
    if kind != np.int64:
        expr = onnx_op("Cast", expr, to=int(fact.dtype))
    expr = onnx_op("Mul", expr, number[0])
    return _table(node, fact, (extent,), 0, origin, onnx_op("Add", expr, number[1]) if low else expr)


def _laid_out(node: Node) -> Outcome | None:
    """Slice of a constant table from a row that moves with the length: rows about a middle, or up to an end."""
    table = node.facts[0]
    if not isinstance(table, Static) or not any(isinstance(f, ShapeTensor) for f in node.facts[1:]):
        return None
    wanted = cuts(node, len(table.shape))
    if len(wanted) != 1 or not wanted[0].start.moves or wanted[0].step != 1:
        return None
    cut, rows = wanted[0], table.shape[wanted[0].axis].constant
    if rows is None:
        return None
    start, end = (
        v + rows if v.at(1) < 0 else v for v in (cut.start, cut.end if cut.end is not None else Length.of(rows))
    )
    origin = _origin(end - start, lambda o: (start + o).constant is not None)
    if origin is None:
        return None
    index = onnx_op("Add", Offset(rate_of(origin + 1)), const((start + origin).constant))
    clipped = onnx_op("Min", onnx_op("Max", index, const(0)), const(rows - 1))
    shape = (*table.shape[: cut.axis], end - start, *table.shape[cut.axis + 1 :])
    return _table(node, table, shape, cut.axis, origin, onnx_op("Gather", Ref(table.wire), clipped, axis=cut.axis))


# the skew, one operator of the batch model at a time


def _skew(node: Node) -> RelativeScores:
    found = [f for f in node.facts if isinstance(f, RelativeScores)]
    if len(found) != 1:
        refuse(SKEWED, SKEWED_HINT)
    return found[0]


def _scaled(node: Node) -> Outcome:
    """An operator by element, with values that are the same for all queries and offsets."""
    x = _skew(node)
    inputs: list[Expr | None] = []
    for k, fact in enumerate(node.facts):
        if fact is x:
            inputs.append(QueryKeyRead(x.wire, (0, 0), (0, 0)))
            continue
        if (
            not isinstance(fact, Static)
            or len(fact.shape) > len(x.shape)
            or any(fact.shape[a - len(x.shape)].constant != 1 for a in x.axes if len(x.shape) - a <= len(fact.shape))
        ):
            refuse(SKEWED, SKEWED_HINT)
        inputs.append(static(node, k))
    if x.form != "rows" or x.padded:
        refuse(SKEWED, SKEWED_HINT)
    dtype = x.dtype if node.op_type != "Cast" else type(x.dtype)(node.attr("to"))
    return as_outcome(node, [same_op(node, inputs)], [replace(x, wire=node.outputs[0], dtype=dtype)])


def _padded(x: RelativeScores) -> Outcome:
    if x.form != "rows" or x.padded:
        refuse(SKEWED, SKEWED_HINT)
    _, b = x.axes
    return Outcome((replace(x, padded=1, shape=(*x.shape[:b], x.width + 1, *x.shape[b + 1 :])),))


def _pad(node: Node) -> Outcome:
    x = _skew(node)
    pads, _, mode = pads_of(node, len(x.shape))
    wanted = [(1, 0) if k == x.axis + 1 else (0, 0) for k in range(len(x.shape))]
    if mode != "constant" or [(a.constant, b.constant) for a, b in pads] != wanted:
        refuse("it pads relative positions other than by one before the first", SKEWED_HINT)
    return _padded(x)


def _concat(node: Node) -> Outcome:
    x = _skew(node)
    at = node.axis(len(x.shape))
    column = node.facts[0]
    if (
        len(node.facts) != 2
        or node.facts[1] is not x
        or at != x.axis + 1
        or not isinstance(column, (Static, Stream))
        or (shape_of(column)[at].constant != 1)
    ):
        refuse("it puts more beside relative positions than one column before the first", SKEWED_HINT)
    return _padded(x)


def _reshape(node: Node) -> Outcome:
    x = _skew(node)
    sizes = node.sizes(1, "the target shape")
    assert sizes is not None
    target = resolve(x.shape, sizes, bool(node.attr("allowzero", 0)))
    a, b = x.axes
    if len(target) != len(x.shape) or [d for k, d in enumerate(target) if k not in x.axes] != [
        d for k, d in enumerate(x.shape) if k not in x.axes
    ]:
        refuse(SKEWED, SKEWED_HINT)
    to = (target[a], target[b])
    if x.form == "rows" and to == (x.queries, x.width + x.padded):
        return Outcome((x,))
    if x.form == "rows" and to == (x.width + x.padded, x.queries):
        return Outcome((replace(x, form="folded", shape=tuple(target)),))
    if x.form == "dropped" and to == (x.queries, x.width + x.padded - 1):
        if x.origin != x.queries - x.padded:
            refuse("the skew brings other offsets to the keys than those its table is laid out for", SKEWED_HINT)
        x = replace(x, form="skewed", shape=tuple(target))
        return _finished(node, x) if to[1] == x.queries else Outcome((x,))
    refuse(SKEWED, SKEWED_HINT)


def _slice(node: Node) -> Outcome:
    x = _skew(node)
    wanted = [c for c in cuts(node, len(x.shape)) if c.start.terms or (c.end is not None and c.end != x.shape[c.axis])]
    if not wanted:
        return Outcome((x,))
    (a, b), cut = x.axes, wanted[0]
    end = cut.end if cut.end is not None else x.shape[cut.axis]
    if (
        len(wanted) == 1
        and cut.step == 1
        and x.form == "folded"
        and (cut.axis, cut.start, end) == (a, Length.of(1), x.shape[a])
    ):
        return Outcome((replace(x, form="dropped", shape=(*x.shape[:a], x.shape[a] - 1, *x.shape[a + 1 :])),))
    if (
        len(wanted) == 1
        and cut.step == 1
        and x.form == "skewed"
        and (cut.axis, cut.start, end) == (b, Length.of(0), x.queries)
    ):
        return _finished(node, x)
    refuse(SKEWED, SKEWED_HINT)


def _finished(node: Node, x: RelativeScores) -> Outcome:
    """Queries × keys: the same skew on as many offsets as a window of queries and one of keys have."""
    a, b = x.axes

    def dims(*two: Dim) -> Dims:
        others: list[Dim] = [d.constant if d.constant is not None else d for d in x.shape]
        return Dims((*others[:a], *two, *others[b + 1 :]))

    queries, keys, offsets = Frames(x.rate), Frames(x.rate, role=1), Frames(2 * x.rate, role=2)
    grid = QueryKeyRead(x.wire, (0, 0), (0, 0))
    padded = onnx_op("Concat", onnx_op("Slice", grid, const([0]), const([1]), const([b])), grid, axis=b)
    flat = onnx_op("Reshape", padded, dims(1, -1))
    dropped = onnx_op("Slice", flat, Dims((queries,)), const([2**62]), const([b]))
    rows = onnx_op("Reshape", dropped, dims(queries, offsets))
    expr = onnx_op("Slice", rows, const([0]), Dims((keys,)), const([b]))
    whole = x.width == 2 * x.origin + 1 or x.width == 2 * x.origin
    return as_outcome(node, [expr], [unskewed(x, node.outputs[0], behind=not whole)])


_SKEWS: dict[str, Callable[[Node], Outcome]] = {
    "Pad": _pad,
    "Concat": _concat,
    "Reshape": _reshape,
    "Slice": _slice,
    "Mul": _scaled,
    "Div": _scaled,
    "Cast": _scaled,
}
