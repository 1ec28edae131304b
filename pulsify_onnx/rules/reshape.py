"""Reshape and its kin: a dimension is a product of factors, and the stream is one of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from pulsify_onnx.errors import refuse
from pulsify_onnx.extent import Length
from pulsify_onnx.facts import Fact, Pair, Shape, Sizes, Static, Stream
from pulsify_onnx.node import Node
from pulsify_onnx.plan import Dim, Dims, Frames, Op, Outcome, Step
from pulsify_onnx.rules.combine import call, paired, static_value, step, the_stream
from pulsify_onnx.rules.registry import rule
from pulsify_onnx.rules.slicing import rate_of
from pulsify_onnx.shapes import shape_of
from pulsify_onnx.windows import align, solid, windowed

LENGTH_TOLD = "the target shape has a fixed number of frames, so it fits one length of the stream only"


def resolve(shape: Shape, target: Sequence[Length], allowzero: bool) -> list[Length]:
    """The shape that `target` means for a tensor of `shape`: 0 copied, -1 worked out."""
    out = [shape[k] if d.constant == 0 and not allowzero else d for k, d in enumerate(target)]
    if any(d.constant == -1 for d in out):
        at = next(k for k, d in enumerate(out) if d.constant == -1)
        rest = [d for k, d in enumerate(out) if k != at]
        out[at] = _quotient(list(shape), rest)
    return out


def _quotient(over: list[Length], under: list[Length]) -> Length:
    """Product of `over` by product of `under`, exact."""
    over, under = _factors(over), _factors(under)
    for d in list(under):
        if d in over and d.constant is None:
            over.remove(d)
            under.remove(d)
    top = math.prod((d.constant for d in over if d.constant is not None), start=1)
    bottom = math.prod((d.constant for d in under if d.constant is not None), start=1)
    moving = math.prod((d for d in over if d.constant is None), start=Length.of(1))
    if any(d.constant is None for d in under):
        below = math.prod((d for d in under if d.constant is None), start=Length.of(1))
        if moving == below:
            return Length.of(top // bottom)
        refuse(LENGTH_TOLD, hint="export with a dynamic length, so that the shape is computed from the input's")
    whole = moving * top
    return whole.floordiv(bottom)


def _factors(dims: list[Length]) -> list[Length]:
    """`dims` with products taken apart, so that a batch cancels out of twice the batch."""
    out: list[Length] = []
    for d in dims:
        if len(d.terms) == 1 and d.constant is None and d.terms[0][1].denominator == 1:
            atoms, coefficient = d.terms[0]
            out += [Length.of(coefficient), *(Length((((atom,), Fraction(1)),)) for atom in atoms)]
        else:
            out.append(d)
    return out


def rearrange(node: Node, x: Stream, target: list[Length]) -> Outcome:
    """`x` in row-major order as `target`; the stream may take up or give off faster-running factors, or slower ones."""
    outer = math.prod(x.shape[: x.axis], start=Length.of(1)) * x.slower
    inner = math.prod(x.shape[x.axis + 1:], start=Length.of(1))
    at = next((k for k, d in enumerate(target) if d.moves), None)
    if at is None:
        refuse(LENGTH_TOLD if math.prod((d.constant or 0 for d in target), start=1) else "it reshapes the stream away",
               hint="export with a dynamic length, so that the shape is computed from the input's")
    before, after = math.prod(target[:at], start=Length.of(1)), math.prod(target[at + 1:], start=Length.of(1))
    slower = _slower(outer, before)
    if inner.constant is None and inner != after and not after.moves:
        refuse("it merges the stream with a batch of unknown size", hint="export with a fixed batch (of 1)")
    if after.moves:
        refuse("two dimensions of the target shape follow the length of the stream", hint="reshape to frames of a fixed size")
    steps: list[Step] = []
    if inner == after:
        (window,), y = align([x], node.options, leads=slower == x.slower)
        factor = 1
    else:
        if inner.constant is None or after.constant is None:
            refuse("the size of the frames is not known", hint="export with fixed channel sizes")
        common = math.gcd(inner.constant, after.constant)
        factor, together = inner.constant // common, after.constant // common
        if factor > 1 and together > 1:
            refuse(f"it cuts frames of {inner} values into frames of {after}, neither of which divides the other",
                   hint="reshape by whole frames")
        if x.slower > 1 and together > 1:
            refuse("it joins frames whose rows another axis keeps apart", hint="split the merged axis first")
        x = solid(x, node.options, steps)
        window, y = windowed(x, together, together, node.options)
    rate = y.rate * factor * slower / x.slower
    shape: list[Dim] = [Frames(rate) if k == at else _dim(d) for k, d in enumerate(target)]
    delay = Fraction(y.delay * factor * slower, x.slower)
    fact = replace(y, wire=node.outputs[0], shape=tuple(target), axis=at, rate=rate, delay=int(delay), slower=slower)
    if factor > 1 or slower != x.slower:
        fact = replace(fact, lead=0, trail=Length(()), border=None, positional=False)
    if slower == x.slower:
        return step(node, [Op("Reshape", (window, Dims(tuple(shape))))], [fact], before=steps)
    kept = math.prod(x.shape[: x.axis], start=Length.of(1)) if slower == 1 else before
    frames, moved = Frames(rate / slower), x.slower * slower
    apart: list[Dim] = [_dim(kept), moved, frames] if slower > 1 else [_dim(kept), frames, moved]
    rows = call("Transpose", Op("Reshape", (window, Dims((*apart, _dim(after))))), perm=[0, 2, 1, 3])
    return step(node, [Op("Reshape", (rows, Dims(tuple(shape))))], [fact], before=steps)


def _slower(outer: Length, before: Length) -> int:
    """Size of the slower-running axes that a target merges into the stream's dimension."""
    if outer == before:
        return 1
    if outer.constant is None:
        refuse(f"it merges the stream with a batch of unknown size (sizes {outer} before, {before} after)", hint="export with a fixed batch (of 1)")
    if not before.constant or outer.constant % before.constant:
        refuse(f"it merges the stream with an axis that runs more slowly (sizes {outer} before, {before} after), so frames of one time lie far apart",
               hint="transpose time to the front before reshaping")
    return outer.constant // before.constant


@rule("Reshape", versions=(5, 13, 14, 19, 21, 23, 24, 25))
def reshape(node: Node) -> Outcome:
    """Any reshape that splits or joins whole frames: [T, k] to [T*k], [T*k] to [T, k]; [n, T] to [n*T] for operators on rows, and back.

    Refuses: a number of frames written into the shape.
    """
    target = node.sizes(1, "the target shape")
    assert target is not None
    if isinstance(node.facts[0], Pair):
        return _pair_rearranged(node, node.facts[0], resolve(node.facts[0].shape, target, bool(node.attr("allowzero", 0))))
    x = the_stream(node)
    return rearrange(node, x, resolve(x.shape, target, bool(node.attr("allowzero", 0))))


@rule("Flatten", versions=(1, 9, 11, 13, 21, 23, 24, 25))
def flatten(node: Node) -> Outcome:
    """Any axis that stays outermost on its side.

    Refuses: flattening the stream under a slower axis or into the features.
    """
    x = the_stream(node)
    axis = node.axis(x.rank, default=1)
    if x.axis >= axis and math.prod(x.shape[axis:], start=Length.of(1)) != x.extent:
        refuse("it flattens the whole stream into one vector of features", hint="classify each frame, or cut the model here and run the rest on a window of frames")
    target = [math.prod(x.shape[:axis], start=Length.of(1)), math.prod(x.shape[axis:], start=Length.of(1))]
    return rearrange(node, x, target)


@rule("Expand", versions=(8, 13))
def expand(node: Node) -> Outcome:
    """A stream along its other axes, or a static value along the stream.

    Refuses: a number of frames written into the shape.
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
    if isinstance(fact, Pair):
        sides = tuple(a + rank - len(own) for a in fact.axes)
        rest = tuple(1 if k in sides else _dim(w) for k, w in enumerate(wanted))
        return paired(node, [(sides[0], sides[1]), None], lambda inputs: call("Expand", inputs[0], Dims(rest)), shape, fact.dtype)
    if isinstance(fact, Stream) and any(w.moves for k, w in enumerate(wanted) if k != fact.axis + rank - len(own)):
        refuse("it repeats every frame for every other frame", hint="broadcast instead, as attention does")
    if isinstance(fact, Stream):
        at = fact.axis + rank - len(own)
        if wanted[at].constant not in (None, 1):
            refuse(LENGTH_TOLD, hint="export with a dynamic length")
        (window,), y = align([fact], node.options)
        dims = tuple(1 if k == at else _dim(w) for k, w in enumerate(wanted))
        return step(node, [call("Expand", window, Dims(dims))], [y.placed(node.outputs[0], fact.dtype, shape, at)])
    value = static_value(fact)
    return constant_over_time(node, fact, shape, lambda dims: call("Expand", value, Dims(dims)))


def _dim(d: Length) -> Dim:
    return d.constant if d.constant is not None else d


def constant_over_time(node: Node, fact: Fact, shape: Shape, make) -> Outcome:  # type: ignore[no-untyped-def]
    """A value that is the same in every frame: a positional stream along the dimension that moves, static where none does."""
    moving = [k for k, d in enumerate(shape) if d.moves]
    if not moving and isinstance(fact, (Static, Sizes)):
        return step(node, [make(tuple(_dim(d) for d in shape))], [Static(node.outputs[0], fact.dtype, shape)])
    if len(moving) == 2 and isinstance(fact, (Static, Sizes)):
        return _constant_over_pairs(node, fact, shape, (moving[0], moving[1]), make)
    if len(moving) != 1 or not isinstance(fact, (Static, Sizes)):
        refuse("two of its dimensions follow the length of the stream", hint="attention needs a window")
    at = moving[0]
    rate = rate_of(shape[at])
    dims = tuple(Frames(rate) if k == at else _dim(d) for k, d in enumerate(shape))
    dtype = fact.dtype
    y = Stream(node.outputs[0], dtype, shape, at, rate, positional=True)
    return step(node, [make(dims)], [y])


def _constant_over_pairs(node: Node, fact: Static | Sizes, shape: Shape, axes: tuple[int, int], make) -> Outcome:  # type: ignore[no-untyped-def]
    """A value that is the same for every pair of frames."""
    rates = [rate_of(shape[k]) for k in axes]
    if rates[0] != rates[1]:
        refuse("two of its dimensions follow the stream at different rates", hint="attend between streams of one rate")
    dims = tuple(Frames(rates[0], role=axes.index(k)) if k in axes else _dim(d) for k, d in enumerate(shape))
    y = Pair(node.outputs[0], fact.dtype, shape, axes, rates[0], positional=True)
    return step(node, [make(dims)], [y])


def _pair_rearranged(node: Node, x: Pair, target: list[Length]) -> Outcome:
    """A reshape of other axes than the two of a pair."""
    moving = [k for k, d in enumerate(target) if d.moves]
    parts = [_between(list(x.shape), list(x.axes)), _between(target, moving)]
    if len(moving) != 2 or parts[0] != parts[1] or [x.shape[a] for a in sorted(x.axes)] != [target[k] for k in moving]:
        refuse("it merges pairs of frames (query × key) into one axis", hint="keep queries and keys on axes of their own")
    low = x.axes[0] < x.axes[1]
    sides = (moving[0], moving[1]) if low else (moving[1], moving[0])
    dims = tuple(Frames(x.rate, role=moving.index(k)) if k in moving else _dim(d) for k, d in enumerate(target))
    return paired(node, [sides, None], lambda inputs: call("Reshape", inputs[0], Dims(dims)), target, x.dtype)


def _between(shape: list[Length], axes: list[int]) -> list[Length]:
    """Products of the dimensions before, between and after two axes."""
    low, high = sorted(axes)
    return [math.prod(part, start=Length.of(1)) for part in (shape[:low], shape[low + 1: high], shape[high + 1:])]
