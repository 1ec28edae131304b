"""Values that must be valid in every frame, real or not: indices, divisors and lengths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pulsify_onnx.algebra.facts import Stream
from pulsify_onnx.algebra.hidden import only_real
from pulsify_onnx.algebra.padding import materialise_padding
from pulsify_onnx.algebra.plan import Expr, Outcome, Step, Window, rebuilt
from pulsify_onnx.arrays import Const
from pulsify_onnx.rules.kit.node import Node


def guarded(window: Window, x: Stream, fill: int) -> Window:
    """`window` on `x`, which has no border, with `fill` in the frames that are not real."""
    border = Const(np.full([1] * x.rank, fill, x.dtype.numpy()))
    return replace(window, mask=only_real(x, border, guard=True))


def always_valid(node: Node, index: int, fill: int, rule: Callable[[Node, bool], Outcome]) -> Outcome:
    """What `rule` makes of a node whose input `index` must be valid in every frame: `fill` where one is not real.

    The rule is told whether that input streams. Then borders end before the operator, and no frame may turn out later
    to be past the end.
    """
    fact = node.fact(index)
    if not isinstance(fact, Stream):
        return rule(node, False)
    before: list[Step] = []
    x = materialise_padding(fact, node.options, before)
    made = rule(replace(node, facts=(*node.facts[:index], x, *node.facts[index + 1 :])), True)

    def valid(expr: Expr) -> Expr:
        mine = isinstance(expr, Window) and expr.wire == x.wire
        return guarded(expr, x, fill) if mine and isinstance(expr, Window) else rebuilt(expr, valid)

    steps = (replace(step, exprs=tuple(map(valid, step.exprs))) for step in made.steps)
    return replace(made, steps=(*before, *steps))
