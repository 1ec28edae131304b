"""Element-wise operators and casts: aligned, then kept."""

from __future__ import annotations

from dataclasses import replace

from pulsify_onnx.algebra.facts import Blocked, QueryKey, Static, Stream
from pulsify_onnx.algebra.padding import materialise_padding
from pulsify_onnx.algebra.plan import Expr, Op, Outcome, Step, Window
from pulsify_onnx.algebra.windows import align
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.kit.combinators import as_outcome, broadcast, onnx_op, static_value, the_stream
from pulsify_onnx.rules.kit.guarded import guarded
from pulsify_onnx.rules.kit.infer import shape_of
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import rule
from pulsify_onnx.rules.kit.traits import Trait, declare, declares, unmoved
from pulsify_onnx.rules.lengths import decided

UNARY = {
    "Abs": (6, 13),
    "Acos": (7, 22),
    "Acosh": (9, 22),
    "Asin": (7, 22),
    "Asinh": (9, 22),
    "Atan": (7, 22),
    "Atanh": (9, 22),
    "BitCast": (26,),
    "BitwiseNot": (18,),
    "Cast": (6, 9, 13, 19, 21, 23, 24, 25, 28),
    "Ceil": (6, 13),
    "Celu": (12, 28),
    "Clip": (6, 11, 12, 13),
    "Cos": (7, 22),
    "Cosh": (9, 22),
    "Elu": (6, 22),
    "Erf": (9, 13),
    "Exp": (6, 13),
    "Floor": (6, 13),
    "Gelu": (20,),
    "HardSigmoid": (6, 22),
    "HardSwish": (14, 22),
    "IsInf": (10, 20),
    "IsNaN": (9, 13, 20),
    "LeakyRelu": (6, 16),
    "Log": (6, 13),
    "Mish": (18, 22),
    "Neg": (6, 13),
    "Not": (1,),
    "Reciprocal": (6, 13),
    "Relu": (6, 13, 14),
    "Round": (11, 22),
    "Selu": (6, 22),
    "Shrink": (9,),
    "Sigmoid": (6, 13),
    "Sign": (9, 13),
    "Sin": (7, 22),
    "Sinh": (9, 22),
    "Softplus": (1, 22),
    "Softsign": (1, 22),
    "Sqrt": (6, 13),
    "Swish": (24,),
    "Tan": (7, 22),
    "Tanh": (6, 13),
    "ThresholdedRelu": (10, 22),
}
BINARY = {
    "Add": (7, 13, 14),
    "And": (7,),
    "BitShift": (11, 28),
    "BitwiseAnd": (18,),
    "BitwiseOr": (18,),
    "BitwiseXor": (18,),
    "Div": (7, 13, 14),
    "Equal": (7, 11, 13, 19),
    "Greater": (7, 9, 13),
    "GreaterOrEqual": (12, 16),
    "Less": (7, 9, 13),
    "LessOrEqual": (12, 16),
    "Max": (6, 8, 12, 13),
    "Mean": (6, 8, 13),
    "Min": (6, 8, 12, 13),
    "Mod": (10, 13, 28),
    "Mul": (7, 13, 14),
    "Or": (7,),
    "PRelu": (7, 9, 16),
    "Pow": (7, 12, 13, 15),
    "Sub": (7, 13, 14),
    "Sum": (6, 8, 13),
    "SwiGLU": (28,),
    "Where": (9, 16),
    "Xor": (7,),
}


def elementwise(node: Node) -> Outcome:
    """Any axis; several streams are aligned to the largest delay.

    Refuses: streams that meet on different axes, and a constant with as many frames as the export had.
    """
    return decided(node) or broadcast(node)


ELEMENTWISE = frozenset({*UNARY, *BINARY})
"""Operators that mix no elements."""

for _name, _versions in {**UNARY, **BINARY}.items():
    if _name not in ("Div", "Mod"):
        rule(_name, versions=_versions)(elementwise)

declare(Trait.FRAMES_APART, *ELEMENTWISE)
declare(Trait.FORM, "Cast")
declare(Trait.AXIS, "Cast", value=unmoved)
declare(Trait.MULTIPLIES, "Mul")
declare(Trait.ARITHMETIC, "Add", "Mul", "Pow", "Sub")


@declares(Trait.MULTIPLIES, only="Div")
@declares(Trait.ARITHMETIC, only="Div")
@rule("Div", versions=BINARY["Div"])
@rule("Mod", versions=BINARY["Mod"])
def division(node: Node) -> Outcome:
    """Any axis; several streams are aligned to the largest delay. Whole numbers are divided by 1 where a frame is not
    real.

    Refuses: streams that meet on different axes, and a constant with as many frames as the export had.
    """
    by = node.fact(1)
    if not isinstance(by, Stream) or by.dtype.is_floating_point() or any(isinstance(f, QueryKey) for f in node.facts):
        return broadcast(node)
    before: list[Step] = []
    by = materialise_padding(by, node.options, before)
    made = broadcast(replace(node, facts=(node.facts[0], by)), leads=False, late=True)
    steps = tuple(replace(step, exprs=tuple(_never_by_zero(e, by) for e in step.exprs)) for step in made.steps)
    return replace(made, steps=(*before, *steps))


def _never_by_zero(expr: Expr, by: Stream) -> Expr:
    """A quotient of whole numbers; onnxruntime ends the process where one is divided by 0."""
    if not isinstance(expr, Op) or not isinstance(window := expr.inputs[1], Window):
        return expr
    return replace(expr, inputs=(expr.inputs[0], guarded(window, by, 1)))


@rule("Dropout", versions=(7, 10, 12, 13, 22))
def dropout(node: Node) -> Outcome:
    """Any axis; without training it passes its input on.

    Refuses: training mode, and a mask that is read.
    """
    x = the_stream(node)
    training = node.const(2, "training_mode")
    if training is not None and bool(training):
        refuse("it drops frames at random (training mode)", hint="export the model in evaluation mode")
    if len(node.outputs) > 1 and node.outputs[1]:
        refuse("its mask is read, which only training needs", hint="export the model in evaluation mode")
    return Outcome((x,) * len(node.outputs))


@declares(Trait.FORM)
@declares(Trait.SAME_ORDER)
@declares(Trait.FRAMES_APART)
@declares(Trait.IDENTITY)
@declares(Trait.AXIS, unmoved)
@rule("Identity", versions=(1, 13, 14, 16, 19, 21, 23, 24, 25))
def identity(node: Node) -> Outcome:
    """Anything; the wire goes on under another name."""
    fact = node.facts[0]
    assert isinstance(fact, Stream)
    return Outcome((fact,))


@rule("CastLike", versions=(15, 19, 21, 23, 24, 25))
def cast_like(node: Node) -> Outcome:
    """Any axis: a Cast to the type of the second input, whatever streams there."""
    x, like = node.facts[0], node.facts[1]
    assert x is not None and like is not None and not isinstance(like, Blocked)
    if isinstance(x, Stream):
        (window,), y = align([x], node.options)
        return as_outcome(
            node,
            [onnx_op("Cast", window, to=int(like.dtype))],
            [y.placed(node.outputs[0], like.dtype, x.shape, x.axis)],
        )
    made = onnx_op("Cast", static_value(x), to=int(like.dtype))
    return as_outcome(node, [made], [Static(node.outputs[0], like.dtype, shape_of(x))])
