"""Self-attention that sees a window: a softmax behind a mask of positions, closed by a sum over the keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.border import has_border
from pulsify_onnx.algebra.facts import Fact, QueryKey, Shape, Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.padding import materialise_padding
from pulsify_onnx.algebra.plan import Expr, Op, Outcome, QueryKeyRead, Step
from pulsify_onnx.algebra.query_key import (
    aligned_values,
    attended,
    chunk_pulse,
    indices_of,
    key_window,
    reached,
    reduce_over_keys,
    timed,
)
from pulsify_onnx.arrays import Array, Const
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.kit.combinators import as_outcome, const, onnx_op, passthrough, same_op, static
from pulsify_onnx.rules.kit.guarded import always_valid
from pulsify_onnx.rules.kit.infer import infer
from pulsify_onnx.rules.kit.masks import MASKED, UNBOUNDED, UNBOUNDED_HINT, band_of
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.positions import Sides
from pulsify_onnx.rules.kit.real import Valid
from pulsify_onnx.rules.kit.registry import CONTRIB, rule
from pulsify_onnx.rules.kit.scores import Scores
from pulsify_onnx.rules.kit.traits import Trait, declares
from pulsify_onnx.rules.kit.views import normalised_axes


def _along(flags: Expr, rank: int, axis: int) -> Expr:
    """A vector of one value per frame, shaped to broadcast along `axis`."""
    return onnx_op("Reshape", flags, const([-1 if k == axis else 1 for k in range(rank)]))


def softmax_over_keys(node: Node, s: QueryKey) -> Outcome:
    """A softmax over one side of a pair: zero outside the band that its mask leaves open."""
    axis = node.axis(len(s.shape))
    if len(normalised_axes(node, len(s.shape))) > 1:
        refuse("it normalises over several axes at once", hint="export with opset 13 or later")
    if axis not in s.axes:
        refuse("it normalises pairs of frames over another axis", hint="take the softmax over the keys")
    side = s.axes.index(axis)
    band = band_of(s, side, node.world, node.world.opset)
    if s.behind and (band.right > 0 or side == 0):
        refuse(
            "its relative positions reach back from a query only, but its mask shows keys after it",
            hint="skew a table of 2T - 1 relative positions",
        )
    grid = QueryKeyRead(s.wire, (0, 0), (0, 0))
    low: Expr = Const(np.asarray(-np.inf, s.dtype.numpy()))
    real, queries = (
        _along(Valid(indices_of(s, k), s.shape[s.axes[k]]).anywhere(), len(s.shape), s.axes[k])
        for k in (side, 1 - side)
    )
    # a query before the first frame sees no key: its scores are all alike, so that its weights are finite
    real, low = onnx_op("And", real, queries), onnx_op("Where", queries, low, Const(np.asarray(0, s.dtype.numpy())))
    y = replace(s, wire=node.outputs[0], alive=band, positional=False)
    return as_outcome(node, [same_op(node, [onnx_op("Where", real, grid, low)])], [y])


Sum = Callable[[Expr, Expr], Expr]
"""What is made of weights and values."""

Fused = Callable[[Expr, Expr, Expr, Expr], Expr]
"""What an operator makes of queries, keys, values, and which pairs may meet."""


def weighted_sum(
    node: Node,
    weights: QueryKey,
    values: Stream | QueryKey,
    query_axis: int,
    make: Sum,
    shape: Shape,
    dtype: ir.DataType,
    side: int = 0,
) -> Outcome:
    """Close a pair by summing over its keys: `make` (weights, values) -> expression of the sum.

    The values are those of the keys, or positional ones of every pair of query and key, with the keys along `side`.
    """
    if weights.alive is None:
        refuse(
            "it sums over the whole stream: the weights are not zero outside a window",
            hint="mask the scores before the softmax; see which keys a query may see",
        )
    steps: list[Step] = []
    if isinstance(values, Stream):
        values = materialise_padding(values, node.options, steps) if has_border(values) else values
    elif not values.positional:
        refuse("its values differ from query to query", hint="attend to values of the keys, or of relative positions")
    if values.rate != weights.rate:
        refuse("keys and values run at different rates", hint="bring both to one rate")
    grid, delay, keys = reduce_over_keys(weights, values if isinstance(values, Stream) else None)
    expr = make(
        grid,
        key_window(values, delay, keys) if isinstance(values, Stream) else aligned_values(values, side, delay, keys),
    )
    along, own = weights.alive.side, timed(values) if isinstance(values, Stream) else values.reach
    reach = reached(
        weights.reach.joined(own),
        weights.shape[weights.axes[along]],
        weights.alive,
        weights.rate,
        weights.delays[along],
    )
    full = (*shape[:query_axis], weights.shape[weights.axes[1 - weights.alive.side]], *shape[query_axis + 1 :])
    y = Stream(node.outputs[0], dtype, full, query_axis, weights.rate, delay, reach=reach, source=weights.source)
    outcome = as_outcome(node, [expr], [y], before=steps)
    return replace(outcome, pulse_multiple=chunk_pulse(weights.alive, weights.rate))


def matmul_pair(node: Node) -> Outcome | None:
    """MatMul of weights and values; None where it is something else."""
    weights, values = node.facts[0], node.facts[1]
    if not isinstance(weights, QueryKey):
        if isinstance(values, QueryKey) and len(values.shape) - 2 in values.axes:
            refuse("it multiplies by pairs of frames from the left", hint="write attention as weights times values")
        return None
    keys = len(weights.shape) - 1
    if keys not in weights.axes:
        return None
    if not isinstance(values, (Stream, QueryKey)) or len(values.shape) - 2 not in (
        (values.axis,) if isinstance(values, Stream) else values.axes
    ):
        refuse(
            "it sums pairs of frames over the whole stream", hint="attention sums weights times values over the keys"
        )
    if weights.alive is not None and weights.axes[weights.alive.side] != keys:
        refuse("it sums over the queries of a softmax over keys", hint="attention sums over the keys")
    other = weights.axes[0] if weights.axes[1] == keys else weights.axes[1]
    rank = max(len(weights.shape), len(values.shape))
    if isinstance(values, QueryKey) and [a for a in values.axes if a != len(values.shape) - 2] != [
        other + len(values.shape) - len(weights.shape)
    ]:
        refuse(
            "its values are pairs of other frames than its weights", hint="give every pair of query and key its value"
        )
    ((dtype, shape),) = infer(node)
    return weighted_sum(
        node,
        weights,
        values,
        other + rank - len(weights.shape),
        lambda w, v: same_op(node, [w, v]),
        tuple(d if d is not None else Length.of(1) for d in shape or ()),
        dtype,
        values.axes.index(len(values.shape) - 2) if isinstance(values, QueryKey) else 0,
    )


def _across(node: Node, lengths: int, shared: Sequence[int] = ()) -> Outcome:
    """Every frame is a sequence of its own: time is the batch, first in all inputs that have it; those `shared` have
    none.

    Input `lengths` says how many keys of a sequence are no padding; a number that can't be stops onnxruntime.
    """
    axes: list[int | None] = []
    for k, fact in enumerate(node.facts):
        if isinstance(fact, Stream) and (fact.axis != 0 or k in shared):
            refuse(
                "the stream runs along its batch and along another axis of one of its inputs",
                hint="bring time to the first axis of all, or see --axis",
            )
        if k < 3 and fact is not None and not isinstance(fact, Stream) and k not in shared:
            refuse(
                "only some of query, key and value stream",
                hint="attend among streams, or over a static memory by MatMul and Softmax",
            )
        axes.append(0 if isinstance(fact, Stream) else None)
    return always_valid(node, lengths, 1, lambda shown, counts: passthrough(shown, axes, leads=not counts, late=counts))


def _fused(
    node: Node, q: Fact | None, k: Fact | None, v: Fact | None, mask: Fact | None, axis: int, make: Fused, shape: Shape
) -> Outcome:
    """An attention operator on streams `q`, `k`, `v` along `axis` with positions' mask `mask` (a pair)."""
    if not isinstance(q, Stream) or not isinstance(k, Stream) or not isinstance(v, Stream):
        refuse(
            "only some of query, key and value stream",
            hint="attend among streams, or over a static memory by MatMul and Softmax",
        )
    if not isinstance(mask, QueryKey):
        if isinstance(mask, Stream):
            refuse(
                "its mask follows the stream along one axis only, so it can't hide the future",
                hint="give it a mask of query × key",
            )
        if node.attr("is_causal", 0) or node.attr("unidirectional", 0):
            refuse(UNBOUNDED, UNBOUNDED_HINT)
        refuse(
            "attention over the whole stream: no mask hides the future",
            hint="train with a mask that shows a window (a band or chunks)",
        )
    if q.axis != axis or k.axis != axis or v.axis != axis:
        refuse("the stream does not run along the sequence", hint="transpose time to the sequence axis, or see --axis")
    steps: list[Step] = []
    q, k, v = (materialise_padding(x, node.options, steps) for x in (q, k, v))
    boolean = mask.dtype.name == "BOOL"
    causal = bool(node.attr("is_causal", 0) or node.attr("unidirectional", 0))
    side = 1

    def masked(scores: Scores, expr: Expr, at: Sides) -> Array:
        hidden = scores.truth(expr, at)[1] if boolean else scores.bound(expr, at) <= MASKED
        if causal:
            n = scores.positions.frames
            hidden = hidden | (np.arange(n + at.more[1])[None, :] > np.arange(n)[:, None])
        return hidden

    band = band_of(mask, side, node.world, node.world.opset, masked)
    at = attended(q, k, v, mask, band)
    rank, (column, row) = len(mask.shape), mask.axes
    seen = _along(Valid(at.keys, k.extent).anywhere(), rank, row)
    if causal:
        late = onnx_op("Less", _along(at.queries, rank, column), _along(at.keys, rank, row))
        seen = onnx_op("And", seen, onnx_op("Not", late))
    queries = _along(Valid(at.queries, q.extent).anywhere(), rank, column)
    if boolean:
        allowed = onnx_op("Or", onnx_op("And", seen, at.mask), onnx_op("Not", queries))
    else:
        low, zero = (Const(np.asarray(value, mask.dtype.numpy())) for value in (-np.inf, 0))
        allowed = onnx_op("Where", onnx_op("And", seen, queries), at.mask, onnx_op("Where", queries, low, zero))
    expr = make(at.query, at.key, at.value, allowed)
    full = (*shape[:axis], q.extent, *shape[axis + 1 :])
    y = Stream(node.outputs[0], q.dtype, full, axis, q.rate, at.delay, reach=at.reach, source=q.source)
    return replace(as_outcome(node, [expr], [y], before=steps), pulse_multiple=chunk_pulse(band, q.rate))


@declares(Trait.MASK, 3)
@declares(Trait.CACHES, ((4, 1), (5, 2)))
@rule("Attention", versions=(23, 24))
def attention(node: Node) -> Outcome:
    """Along the sequence, with a mask of positions that shows a band or chunks. Along the batch.

    State: a window of keys and values.  Refuses: no mask, unbounded causal attention, past and present keys.
    """
    if isinstance(first := node.fact(0), Stream) and first.axis == 0:
        return _across(node, lengths=6)
    if any(node.fact(k) is not None for k in range(4, len(node.facts))):
        refuse(
            "it keeps keys of the past itself (past_key, past_value) or hides padded keys (nonpad_kv_seqlen)",
            hint="export attention without a cache; the stream's own history takes its place",
        )
    if any(node.outputs[k] for k in range(1, len(node.outputs))):
        refuse("its cache or its scores are read", hint="export attention with one output")
    q, v = node.fact(0), node.fact(2)
    if not isinstance(q, Stream):
        refuse("its query does not stream", hint="attend from the stream")
    axis = 1 if q.rank == 3 else 2
    shape = list(q.shape)
    if isinstance(v, Stream):
        if q.rank == 4:
            shape[3] = v.shape[3]
        else:
            heads = Length.of(int(node.attr("q_num_heads")))
            per = v.shape[2].constant
            shape[2] = heads * (per // int(node.attr("kv_num_heads"))) if per is not None else shape[2]
    attributes = {"is_causal": None} if node.attributes.get("is_causal") else {}
    return _fused(
        node,
        q,
        node.fact(1),
        v,
        node.fact(3),
        axis,
        lambda *inputs: Op("Attention", inputs, node.replaced(**attributes), "", 1),
        tuple(shape),
    )


@declares(Trait.MASK, 5)
@declares(Trait.BIAS)
@declares(Trait.CACHES, ((6, 1), (7, 2)))
@rule("MultiHeadAttention", versions=(1,), domain=CONTRIB)
def multi_head_attention(node: Node) -> Outcome:
    """Along the sequence, with an attention bias of positions that shows a band or chunks. Along the batch.

    Refuses: packed inputs, padding masks, past and present keys, unbounded attention.
    """
    if isinstance(first := node.fact(0), Stream) and first.axis == 0:
        return _across(node, lengths=4, shared=(3,))
    if node.fact(4) is not None or any(node.fact(k) is not None for k in range(6, len(node.facts))):
        if node.fact(4) is not None:
            refuse("it hides keys by a padding mask", hint="export without key_padding_mask")
        refuse("it keeps keys of the past itself", hint="export attention without a cache")
    if any(node.outputs[k] for k in range(1, len(node.outputs))):
        refuse("its cache is read", hint="export attention with one output")
    q, v = node.fact(0), node.fact(2)
    if not isinstance(q, Stream) or q.rank != 3 or not isinstance(v, Stream) or v.rank != 3:
        refuse(
            "its query, key and value are packed or do not all stream",
            hint="pass query, key and value as [batch, time, hidden]",
        )
    bias = node.fact(3)
    weights = static(node, 3) if bias is not None else None
    attributes = {"unidirectional": None} if node.attributes.get("unidirectional") else {}
    return _fused(
        node,
        q,
        node.fact(1),
        v,
        node.fact(5),
        1,
        lambda a, b, c, m: Op(
            "MultiHeadAttention", (a, b, c, weights, None, m), node.replaced(**attributes), CONTRIB, 1
        ),
        (*q.shape[:2], v.shape[2]),
    )
