"""Reshape and its kin: a dimension is a product of factors, and the stream is one of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from pulsify_onnx.algebra.border import foldable
from pulsify_onnx.algebra.facts import ALONE, Fact, QueryKey, Shape, ShapeTensor, Static, Stream
from pulsify_onnx.algebra.length import TIME, Length
from pulsify_onnx.algebra.multiples import quotient
from pulsify_onnx.algebra.padding import materialise_padding
from pulsify_onnx.algebra.plan import Dim, Dims, Expr, Frames, Merged, Op, Outcome, Step
from pulsify_onnx.algebra.quotients import ratio
from pulsify_onnx.algebra.windows import align, in_parts, of_parts, windowed
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.edges import repeated
from pulsify_onnx.rules.kit.combinators import as_outcome, onnx_op, paired, static_value, the_stream
from pulsify_onnx.rules.kit.infer import shape_of
from pulsify_onnx.rules.kit.merged_time import dim
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import rule
from pulsify_onnx.rules.kit.traits import Trait, declares
from pulsify_onnx.rules.slicing import rate_of

LENGTH_TOLD = "the target shape has a fixed number of frames, so it fits one length of the stream only"


ONE = Length.of(1)


def resolve(shape: Shape, target: Sequence[Length], allowzero: bool) -> list[Length]:
    """The shape that `target` means for a tensor of `shape`: 0 copied, -1 worked out."""
    out, multiple = _resolved(shape, target, allowzero, shape)
    if multiple > 1:
        refuse(LENGTH_TOLD, hint="export with a dynamic length, so that the shape is computed from the input's")
    return out


def _resolved(
    shape: Shape, target: Sequence[Length], allowzero: bool, parts: Sequence[Length]
) -> tuple[list[Length], int]:
    """`resolve` for a tensor whose dimensions are the product of `parts`, and the multiple of base frames that a stream
    must have so that this is the shape.
    """
    multiple = 1
    out = [shape[k] if d.constant == 0 and not allowzero else d for k, d in enumerate(target)]
    if any(d.constant == -1 for d in out):
        at = next(k for k, d in enumerate(out) if d.constant == -1)
        top, bottom = ratio(parts, [d for k, d in enumerate(out) if k != at])
        found = quotient(top, bottom)
        if found is not None:
            top, bottom, multiple = Length.of(found[0]), ONE, found[1]
        if bottom.constant is None:
            refuse(LENGTH_TOLD, hint="export with a dynamic length, so that the shape is computed from the input's")
        out[at] = top.floordiv(bottom.constant)
    return out, multiple


def rearrange(node: Node, x: Stream, target: list[Length]) -> Outcome:
    """`x` in row-major order as `target`; the stream may take up or give off faster-running factors, or slower ones."""
    at = next((k for k, d in enumerate(target) if d.moves), None)
    if at is None:
        refuse(
            LENGTH_TOLD,
            hint="export with a dynamic length, so that the shape is computed from the input's (from torch: with "
            "dynamo=True)",
        )
    if any(d.moves for d in target[at + 1 :]):
        refuse(
            "two dimensions of the target shape follow the length of the stream",
            hint="reshape to frames of a fixed size",
        )
    slow, fast, together = _around(x, target, at)
    steps: list[Step] = []
    if together > 1 or fast.constant not in (None, 1):
        if together > 1 and slow != ONE and x.extent.floordiv(together) * together != x.extent:
            refuse("it joins frames whose rows another axis keeps apart", hint="split the merged axis first")
        whole = x if slow == ONE and foldable(x, fast.constant or 1) else materialise_padding(x, node.options, steps)
        window, y = windowed(whole, together, together, node.options)
        y = of_parts(whole, y, together)
    else:
        (window,), y = align([x], node.options)
    if fast.constant not in (None, 1):
        extent = y.extent * fast
        y = replace(in_parts(y, fast.constant or 1), shape=(*y.shape[: y.axis], extent, *y.shape[y.axis + 1 :]))
        fast = ONE
    around = (slow, fast)
    if around != ALONE and slow * y.extent * fast != target[at]:
        refuse(
            f"{target[at]} entries hold no whole number of frames ({y.extent} of them, in {slow} rows)",
            hint="reshape by whole frames",
        )
    shape = [*target[:at], target[at] if around == ALONE else y.extent, *target[at + 1 :]]
    frames = Frames(y.rate)
    dims: list[Dim] = [
        (frames if around == ALONE else Merged(slow, frames, fast)) if k == at else dim(d) for k, d in enumerate(target)
    ]
    fact = replace(
        y,
        wire=node.outputs[0],
        shape=tuple(shape),
        axis=at,
        around=around,
        positional=y.positional and around == x.around == ALONE,
    )
    return as_outcome(node, [Op("Reshape", (window, Dims(tuple(dims))))], [fact], before=steps)


def _around(x: Stream, target: Sequence[Length], at: int) -> tuple[Length, Length, int]:
    """What becomes of a stream in dimension `at` of a target: sizes of slower and faster axes merged with it, and
    how many frames become one.
    """
    outer, inner = [*x.shape[: x.axis], x.around[0]], [x.around[1], *x.shape[x.axis + 1 :]]
    (slow, left), (fast, together) = ratio(outer, target[:at]), ratio(inner, target[at + 1 :])
    if left != ONE or together.constant is None:
        refuse(
            f"it takes frames of one row for those of another ([{', '.join(map(str, x.whole))}] to "
            f"[{', '.join(map(str, target))}])",
            hint="keep the order of the axes when reshaping, or transpose time to the front before",
        )
    if together.constant > 1 and fast != ONE:
        refuse(
            f"it cuts frames of {math.prod(inner, start=ONE)} values into frames of "
            f"{math.prod(target[at + 1 :], start=ONE)}, neither of which divides the other",
            hint="reshape by whole frames",
        )
    return slow, fast, together.constant


@declares(Trait.FORM)
@declares(Trait.SAME_ORDER)
@declares(Trait.RESHAPES)
@rule("Reshape", versions=(5, 13, 14, 19, 21, 23, 24, 25))
def reshape(node: Node) -> Outcome:
    """Any reshape that splits or joins whole frames: [T, k] to [T*k], [T*k] to [T, k]; [n, T] or [T, B] to one axis for
    operators that treat all frames alike; to a number of blocks, of streams of a multiple of their frames.

    Refuses: a number of frames written into the shape, and one that mixes frames of different rows.
    """
    target = node.sizes(1, "the target shape")
    assert target is not None
    if isinstance(node.facts[0], QueryKey):
        return _pair_rearranged(
            node, node.facts[0], resolve(node.facts[0].shape, target, bool(node.attr("allowzero", 0)))
        )
    x = the_stream(node)
    slower, faster = x.around
    parts = [*x.shape[: x.axis], slower, x.extent, faster, *x.shape[x.axis + 1 :]]
    shape, multiple = _resolved(x.whole, target, bool(node.attr("allowzero", 0)), parts)
    return replace(rearrange(node, x, shape), pulse_multiple=multiple, length_multiple=multiple)


@declares(Trait.SAME_ORDER)
@rule("Flatten", versions=(1, 9, 11, 13, 21, 23, 24, 25))
def flatten(node: Node) -> Outcome:
    """Any axis; with slower axes before time, for operators that treat all frames alike.

    Refuses: flattening the stream into the features.
    """
    x = the_stream(node)
    axis = node.axis(x.rank, default=1)
    if x.axis >= axis and math.prod(x.whole[axis:], start=ONE) != x.whole[x.axis]:
        refuse(
            "it flattens the whole stream into one vector of features",
            hint="classify each frame, or cut the model here and run the rest on a window of frames",
        )
    target = [math.prod(x.whole[:axis], start=ONE), math.prod(x.whole[axis:], start=ONE)]
    return rearrange(node, x, target)


@declares(Trait.EXPANDS)
@declares(Trait.REPEATS)
@rule("Expand", versions=(8, 13))
def expand(node: Node) -> Outcome:
    """A stream along its other axes, or a static value or a single frame along the stream.

    Refuses: a number of frames written into the shape, and an axis of unknown size repeated.
    """
    target = node.sizes(1, "the target shape")
    assert target is not None
    fact = node.facts[0]
    assert fact is not None
    own = shape_of(fact)
    rank = max(len(own), len(target))
    mine = [Length.of(1)] * (rank - len(own)) + list(own)
    wanted = [Length.of(1)] * (rank - len(target)) + target
    shape = tuple(w if m.constant == 1 else m for m, w in zip(mine, wanted))
    if isinstance(fact, QueryKey):
        sides = tuple(a + rank - len(own) for a in fact.axes)
        rest = tuple(1 if k in sides else dim(w) for k, w in enumerate(wanted))
        return paired(
            node,
            [(sides[0], sides[1]), None],
            lambda inputs: onnx_op("Expand", inputs[0], Dims(rest)),
            shape,
            fact.dtype,
        )
    if isinstance(fact, Stream) and any(w.moves for k, w in enumerate(wanted) if k != fact.axis + rank - len(own)):
        refuse("it repeats every frame for every other frame", hint="broadcast instead, as attention does")
    if isinstance(fact, Stream):
        again = repeated(node, fact, shape)
        if again is not None:
            return again
        at = fact.axis + rank - len(own)
        if wanted[at].constant not in (None, 1):
            refuse(LENGTH_TOLD, hint="export with a dynamic length")
        if more := next(
            (
                (m, w)
                for m, w in zip(mine, wanted)
                if m.constant is None and not m.moves and w.constant not in (None, 1)
            ),
            None,
        ):
            refuse(
                f"it repeats an axis of {more[0]} entries {more[1]} times where there is one, and else "
                f"takes {more[1]} only",
                hint="export with fixed sizes for all axes but time, or with 1 in the target shape",
            )
        (window,), y = align([fact], node.options)
        dims = tuple(1 if k == at else dim(w) for k, w in enumerate(wanted))
        return as_outcome(
            node, [onnx_op("Expand", window, Dims(dims))], [y.placed(node.outputs[0], fact.dtype, shape, at)]
        )
    value = static_value(fact)
    return constant_over_time(node, fact, shape, lambda dims: onnx_op("Expand", value, Dims(dims)))


Repeat = Callable[[tuple[Dim, ...]], Expr]
"""What repeats a value to so many dimensions."""


def constant_over_time(node: Node, fact: Fact, shape: Shape, make: Repeat) -> Outcome:
    """A value that is the same in every frame: a positional stream along the dimension that moves, static where none
    does.
    """
    moving = [k for k, d in enumerate(shape) if d.moves]
    if not moving and isinstance(fact, (Static, ShapeTensor)):
        return as_outcome(node, [make(tuple(dim(d) for d in shape))], [Static(node.outputs[0], fact.dtype, shape)])
    if len(moving) == 2 and isinstance(fact, (Static, ShapeTensor)):
        return _constant_over_pairs(node, fact, shape, (moving[0], moving[1]), make)
    if len(moving) != 1 or not isinstance(fact, (Static, ShapeTensor)):
        refuse("two of its dimensions follow the length of the stream", hint="attention needs a window")
    at = moving[0]
    slower, extent = _rows(shape[at])
    rate = rate_of(extent)
    frames: Dim = Frames(rate) if slower == ONE else Merged(slower, Frames(rate), ONE)
    dims = tuple(frames if k == at else dim(d) for k, d in enumerate(shape))
    y = Stream(
        node.outputs[0],
        fact.dtype,
        (*shape[:at], extent, *shape[at + 1 :]),
        at,
        rate,
        positional=True,
        around=(slower, ONE),
    )
    return as_outcome(node, [make(dims)], [y])


def _rows(length: Length) -> tuple[Length, Length]:
    """A length that grows with the stream as the product of a batch and of frames."""
    slower = Length.of(1)
    for name in sorted(length.symbols() - {TIME}):
        while (frames := length.over(Length.symbol(name))) is not None:
            slower, length = slower * Length.symbol(name), frames
    return slower, length


def _constant_over_pairs(
    node: Node, fact: Static | ShapeTensor, shape: Shape, axes: tuple[int, int], make: Repeat
) -> Outcome:
    """A value that is the same for every pair of frames."""
    rates = [rate_of(shape[k]) for k in axes]
    if rates[0] != rates[1]:
        refuse("two of its dimensions follow the stream at different rates", hint="attend between streams of one rate")
    dims = tuple(Frames(rates[0], role=axes.index(k)) if k in axes else dim(d) for k, d in enumerate(shape))
    y = QueryKey(node.outputs[0], fact.dtype, shape, axes, rates[0], positional=True)
    return as_outcome(node, [make(dims)], [y])


def _pair_rearranged(node: Node, x: QueryKey, target: list[Length]) -> Outcome:
    """A reshape of other axes than the two of a pair."""
    moving = [k for k, d in enumerate(target) if d.moves]
    parts = [_between(list(x.shape), list(x.axes)), _between(target, moving)]
    if len(moving) != 2 or parts[0] != parts[1] or [x.shape[a] for a in sorted(x.axes)] != [target[k] for k in moving]:
        refuse(
            "it merges pairs of frames (query × key) into one axis", hint="keep queries and keys on axes of their own"
        )
    low = x.axes[0] < x.axes[1]
    sides = (moving[0], moving[1]) if low else (moving[1], moving[0])
    dims = tuple(Frames(x.rate, role=moving.index(k)) if k in moving else dim(d) for k, d in enumerate(target))
    return paired(node, [sides, None], lambda inputs: onnx_op("Reshape", inputs[0], Dims(dims)), target, x.dtype)


def _between(shape: list[Length], axes: list[int]) -> list[Length]:
    """Products of the dimensions before, between and after two axes."""
    low, high = sorted(axes)
    return [math.prod(part, start=ONE) for part in (shape[:low], shape[low + 1 : high], shape[high + 1 :])]
