"""Products that sum over an axis: the stream may run along any other."""

from __future__ import annotations

import numpy as np

from pulsify_onnx.algebra.facts import Fact, QueryKey, Static, Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Expr, Outcome, Ref
from pulsify_onnx.algebra.query_key import Side
from pulsify_onnx.arrays import Const
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.attention import matmul_pair, weighted_sum
from pulsify_onnx.rules.contraction import summed
from pulsify_onnx.rules.kit.combinators import onnx_op, passthrough, same_op, static
from pulsify_onnx.rules.kit.infer import infer, shape_of
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import rule
from pulsify_onnx.rules.kit.running import cast, number, wide
from pulsify_onnx.rules.kit.views import may_lack

SUMMED = "it sums over the stream, so its result needs all frames"
SUMMED_HINT = "keep time out of the summed axis; attention over the past needs a window"


def _rank(fact: Fact | None) -> int:
    return len(shape_of(fact)) if fact is not None else 0


def product_axes(node: Node, a: int = 0, b: int = 1, flip_a: bool = False, flip_b: bool = False) -> list[Side]:
    """Output axis of the streams among factors `a` and `b` of a matrix product with numpy broadcasting.

    `flip_a` and `flip_b`: that factor is transposed. Refuses a stream along a batch axis where the other factor has
    a fixed number of matrices.
    """
    ranks = (_rank(node.fact(a)), _rank(node.fact(b)))
    batch = max(max(ranks) - 2, 0)
    axes: list[Side] = [None] * len(node.facts)
    for k, which, flip in ((a, 0, flip_a), (b, 1, flip_b)):
        x = node.fact(k)
        if isinstance(x, QueryKey):
            if (len(x.shape) - 1 if which == 0 else len(x.shape) - 2) in x.axes:
                refuse(SUMMED, SUMMED_HINT)
            rank = batch + 2
            axes[k] = (x.axes[0] + rank - len(x.shape), x.axes[1] + rank - len(x.shape))
        if not isinstance(x, Stream):
            continue
        last = (which == 0) != (flip and x.rank > 1)
        if x.axis == (x.rank - 1 if last else max(x.rank - 2, 0)):
            refuse(SUMMED, SUMMED_HINT)
        if x.axis < x.rank - 2:
            axes[k] = batch - (x.rank - 2) + x.axis
            _one_matrix(node.fact(b if which == 0 else a), x.rank - x.axis)
        elif which == 0:
            axes[k] = batch
        else:
            axes[k] = batch + (1 if ranks[0] > 1 else 0)
    return axes


def _one_matrix(other: Fact | None, from_end: int) -> None:
    """Refuse a factor that does not stream and has several matrices where the other one has a frame each."""
    if other is None or isinstance(other, (Stream, QueryKey)):
        return
    shape = shape_of(other)
    if from_end <= len(shape) and shape[-from_end].constant != 1:
        refuse(
            f"one factor has {shape[-from_end]} matrices for the frames of the other, so it fits one length only",
            hint="use one matrix for all frames",
        )


@rule("MatMul", versions=(1, 9, 13))
def matmul(node: Node) -> Outcome:
    """Rows, columns or batch axes.

    Prefix: the product of two streams summed over their frames.  State: the sum so far.
    Refuses: a sum over the stream with a fixed number of frames, and two streams that meet as rows and columns.
    """
    if any(isinstance(f, QueryKey) for f in node.facts):
        found = matmul_pair(node)
        if found is not None:
            return found
    a, b = node.facts
    if isinstance(a, Stream) and isinstance(b, Stream) and a.axis == a.rank - 1 and b.axis == max(b.rank - 2, 0):
        found = summed(node, [a, b], lambda values: same_op(node, values))
        if found is not None:
            return found
    return passthrough(node, product_axes(node))


@rule("Gemm", versions=(7, 9, 11, 13))
def gemm(node: Node) -> Outcome:
    """Rows or columns of the result, transposed or not; C broadcasts.

    Prefix: the product of two streams summed over their frames.  State: the sum so far.
    Refuses: a sum over the stream with a fixed number of frames.
    """
    a, b = node.facts[:2]
    if (
        isinstance(a, Stream)
        and isinstance(b, Stream)
        and a.axis == 1 - node.attr("transA", 0)
        and b.axis == node.attr("transB", 0)
    ):
        found = _gemm_summed(node, a, b)
        if found is not None:
            return found
    return passthrough(node, gemm_axes(node))


def _gemm_summed(node: Node, a: Stream, b: Stream) -> Outcome | None:
    """Two streams summed over their frames; C joins the total once."""
    if isinstance(node.fact(2), Stream):
        return None
    kind = wide(a.dtype)
    none = () if may_lack(node, 2) else (Const(np.zeros((1, 1), kind.numpy())),)
    c = static(node, 2)
    added = None if c is None else onnx_op("Mul", cast(c, a.dtype, kind), number(node.attr("beta", 1.0), kind))
    return summed(node, [a, b], lambda values: same_op(node, [*values, *none], beta=None), added)


def gemm_axes(node: Node) -> list[int | None]:
    """Output axis of every input of a Gemm that streams."""
    axes: list[int | None] = [None] * len(node.facts)
    for k, flag in ((0, "transA"), (1, "transB")):
        x = node.fact(k)
        if isinstance(x, Stream):
            axis = 1 - x.axis if node.attr(flag, 0) else x.axis
            if axis != k:
                refuse(SUMMED, SUMMED_HINT)
            axes[k] = k
    c = node.fact(2)
    if isinstance(c, Stream):
        axes[2] = c.axis + 2 - c.rank
    target = next((axis for axis in axes if axis is not None), None)
    if target is not None:
        for k, fact in enumerate(node.facts):
            at = target - 2 + _rank(fact)
            if fact is not None and not isinstance(fact, Stream) and k in (2, target) and at >= 0:
                shape = shape_of(fact)
                frames = shape[1 - at if k < 2 and node.attr(("transA", "transB")[k], 0) else at]
                if k < 2 or frames.constant != 1:
                    refuse(
                        f"its input {k} has {frames} frames along the stream, so it fits one length only",
                        hint="compute it from frame positions, or export with a dynamic length",
                    )
    return axes


@rule("Einsum", versions=(12, 28))
def einsum(node: Node) -> Outcome:
    """Any letter that the result keeps.

    Prefix: streams summed over their frames.  State: the sum so far.
    Refuses: a sum over the stream with a fixed number of frames, a diagonal of it, a factor with a fixed number of
    frames.
    """
    equation = node.attr("equation").replace(" ", "")
    terms, arrow, result = equation.partition("->")
    inputs = terms.split(",")
    if not arrow:
        letters = sorted({c for c in terms if c.isalpha()})
        result = ("..." if "..." in terms else "") + "".join(c for c in letters if terms.count(c) == 1)
    dots = max((_rank(f) - len(t.replace("...", "")) for f, t in zip(node.facts, inputs) if "..." in t), default=0)
    spell = [_spell(t, _rank(f) - len(t.replace("...", "")), dots) for f, t in zip(node.facts, inputs)]
    out = _spell(result, dots, dots)
    axes: list[Side] = []
    for fact, letters_of in zip(node.facts, spell):
        if isinstance(fact, QueryKey):
            pair = [letters_of[a] for a in fact.axes]
            if any(c not in out for c in pair):
                return _einsum_closed(node, spell, out)
            axes.append((out.index(pair[0]), out.index(pair[1])))
            continue
        if not isinstance(fact, Stream):
            axes.append(None)
            continue
        letter = letters_of[fact.axis]
        if letter not in out:
            return _einsum_summed(node, spell, letter) or refuse(SUMMED, SUMMED_HINT)
        if letters_of.count(letter) > 1 or out.count(letter) > 1:
            refuse("it takes a diagonal of the stream", hint="keep time on an axis of its own")
        for k, (other, theirs) in enumerate(zip(node.facts, spell)):
            if (
                letter in theirs
                and other is not None
                and not isinstance(other, (Stream, QueryKey))
                and shape_of(other)[theirs.index(letter)].constant != 1
            ):
                refuse(
                    f"its input {k} has a fixed number of frames along the stream, so it fits one length only",
                    hint="compute it from frame positions, or export with a dynamic length",
                )
        axes.append(out.index(letter))
    return passthrough(node, axes)


def _einsum_summed(node: Node, spell: list[list[str]], letter: str) -> Outcome | None:
    """Streams summed over the frames that all of them share."""
    others = []
    for fact, letters in zip(node.facts, spell):
        if isinstance(fact, Stream) and [k for k, c in enumerate(letters) if c == letter] != [fact.axis]:
            return None
        if not isinstance(fact, (Stream, Static)) or (isinstance(fact, Static) and letter in letters):
            return None
        others.append(None if isinstance(fact, Stream) else cast(Ref(fact.wire), fact.dtype, wide(fact.dtype)))

    def product(values: list[Expr]) -> Expr:
        streams = iter(values)
        return same_op(node, [next(streams) if other is None else other for other in others])

    return summed(node, node.streams, product)


def _einsum_closed(node: Node, spell: list[list[str]], out: list[str]) -> Outcome:
    """Weights times values, summed over the keys."""
    if len(node.facts) != 2:
        refuse(SUMMED, SUMMED_HINT)
    at = next((k for k, f in enumerate(node.facts) if isinstance(f, QueryKey) and f.alive is not None), None)
    at = next(k for k, f in enumerate(node.facts) if isinstance(f, QueryKey)) if at is None else at
    weights, values = node.facts[at], node.facts[1 - at]
    assert isinstance(weights, QueryKey)
    letters, others = (spell[at][a] for a in weights.axes), spell[1 - at]
    along = [
        others[a]
        for a in (values.axes if isinstance(values, QueryKey) else (values.axis,) if isinstance(values, Stream) else ())
    ]
    query, key = sorted(letters, key=lambda c: c not in out)
    if (
        query not in out
        or key in out
        or key not in along
        or (isinstance(values, QueryKey) and query not in along)
        or (weights.alive is not None and spell[at][weights.axes[weights.alive.side]] != key)
    ):
        refuse(SUMMED, SUMMED_HINT)
    assert isinstance(values, (Stream, QueryKey))
    ((dtype, shape),) = infer(node)
    return weighted_sum(
        node,
        weights,
        values,
        out.index(query),
        lambda w, v: same_op(node, [w, v] if at == 0 else [v, w]),
        tuple(d if d is not None else Length.of(1) for d in shape or ()),
        dtype,
        along.index(key),
    )


def _spell(term: str, dots: int, most: int) -> list[str]:
    """One symbol per axis; those of an ellipsis are counted from the right."""
    head, ellipsis, tail = term.partition("...")
    return [*head, *(f".{k}" for k in range(most - dots, most)), *tail] if ellipsis else list(term)
