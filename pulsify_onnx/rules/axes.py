"""Operators that move axes about and leave their contents alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx_ir as ir

from pulsify_onnx.algebra.facts import Band, QueryKey, Running, Static
from pulsify_onnx.algebra.plan import Outcome, Ref
from pulsify_onnx.algebra.windows import align
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.kit.combinators import as_outcome, passthrough, the_stream
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import rule
from pulsify_onnx.rules.kit.traits import Trait, declares
from pulsify_onnx.rules.kit.views import axes_of, axes_said, by_axes


def _permuted(attributes: Mapping[str, ir.Attr], axis: int, rank: int) -> int:
    return attributes["perm"].as_ints()[axis] if "perm" in attributes else range(rank)[::-1][axis]


@declares(Trait.FORM)
@declares(Trait.PERMUTES)
@declares(Trait.FRAMES_APART)
@declares(Trait.AXIS, _permuted)
@rule("Transpose", versions=(1, 13, 21, 23, 24, 25))
def transpose(node: Node) -> Outcome:
    """Any axis, any permutation."""
    pair = node.facts[0]
    if isinstance(pair, QueryKey):
        order = node.ints("perm") or list(reversed(range(len(pair.shape))))
        moved = order.index(pair.axes[0]), order.index(pair.axes[1])
        alive = pair.alive and (pair.alive if moved[0] < moved[1] else replace(pair.alive, side=1 - pair.alive.side))
        return with_band(passthrough(node, [moved]), alive)
    x = the_stream(node)
    perm = node.ints("perm") or list(reversed(range(x.rank)))
    return passthrough(node, [perm.index(x.axis)])


@declares(Trait.FORM)
@declares(Trait.SAME_ORDER)
@declares(Trait.FRAMES_APART)
@rule("Squeeze", versions=(1, 11, 13, 21, 23, 24, 25))
def squeeze(node: Node) -> Outcome:
    """Any axis that stays.

    Refuses: squeezing the stream away.
    """
    pair = node.facts[0]
    if isinstance(pair, QueryKey):
        gone = axes_of(node, len(pair.shape)) or [k for k, d in enumerate(pair.shape) if d.constant == 1]
        left = [k for k in range(len(pair.shape)) if k not in gone]
        return passthrough(node, [(left.index(pair.axes[0]), left.index(pair.axes[1])), None][: len(node.facts)])
    x = the_stream(node)
    axes = axes_of(node, x.rank)
    if axes is None:
        axes = [k for k, d in enumerate(x.shape) if d.constant == 1]
    if x.axis in axes:
        refuse("it squeezes the stream axis, so the recording has one frame only", hint="see --axis")
    out = x.axis - sum(a < x.axis for a in axes)
    (window,), y = align([x], node.options)
    shape = tuple(d for k, d in enumerate(x.shape) if k not in axes)
    return as_outcome(node, [by_axes(node, "Squeeze", window, axes)], [y.placed(node.outputs[0], x.dtype, shape, out)])


def squeezed_whole(node: Node) -> Outcome | None:
    """A value that does not stream without the sizes that are 1, where a batch of any size is none of them; None for
    anything else.
    """
    x = node.facts[0] if node.op_type == "Squeeze" and not node.domain else None
    if not isinstance(x, (Running, Static)) or axes_said(node) is not None or all(d.constant for d in x.shape):
        return None
    axes = [k for k, d in enumerate(x.shape) if d.constant == 1]
    shape = tuple(d for d in x.shape if d.constant != 1)
    if node.world.declared_rank(node.outputs[0]) not in (None, len(shape)):
        refuse(
            "an axis of unknown size goes where its size is 1, and stays elsewhere",
            hint="export it with the axes that it squeezes, or with a batch of fixed size",
        )
    fact = replace(x, wire=node.outputs[0], shape=shape)
    return as_outcome(node, [by_axes(node, "Squeeze", Ref(x.wire), axes)], [fact])


@declares(Trait.FORM)
@declares(Trait.SAME_ORDER)
@declares(Trait.FRAMES_APART)
@rule("Unsqueeze", versions=(1, 11, 13, 21, 23, 24, 25))
def unsqueeze(node: Node) -> Outcome:
    """Any axis."""
    pair, new = node.facts[0], axes_said(node) or []
    if isinstance(pair, QueryKey):
        full = len(pair.shape) + len(new)
        old = [k for k in range(full) if k not in {a % full for a in new}]
        return passthrough(node, [(old[pair.axes[0]], old[pair.axes[1]]), None][: len(node.facts)])
    x = the_stream(node)
    full = x.rank + len(new)
    rest = [k for k in range(full) if k not in {a % full for a in new}]
    return passthrough(node, [rest[x.axis], None][: len(node.facts)])


def with_band(outcome: Outcome, alive: Band | None) -> Outcome:
    """An outcome of one pair, with the band outside which it is zero."""
    made = outcome.steps[-1]
    facts = tuple(replace(f, alive=alive) if isinstance(f, QueryKey) else f for f in made.facts)
    return replace(outcome, facts=facts, steps=(*outcome.steps[:-1], replace(made, facts=facts)))
