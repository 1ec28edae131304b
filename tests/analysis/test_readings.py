"""Readings of a node, and the visitor that a walk may have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.facts import Blocked, Static, Stream
from pulsify_onnx.algebra.plan import Options
from pulsify_onnx.analysis.readings import READINGS, Reading, apply_readings
from pulsify_onnx.analysis.walker import Visitor, Walker
from pulsify_onnx.errors import refuse
from pulsify_onnx.model.load import load
from testing.oracle import parse

MODEL = """agraph (float[1,3,T] x) => (float[1,3,T] z) { y = Relu(x)  z = Neg(y) }"""


def walker(text: str = MODEL, readings: tuple[Reading, ...] = READINGS) -> Walker:
    source = load(parse(text))
    return Walker(source, {"x": 2}, {"x": 1}, Options(), set(), readings)


def named(name: str) -> Reading:
    return next(reading for reading in READINGS if reading.name == name)


def test_every_reading_has_a_name_of_its_own():
    assert len({reading.name for reading in READINGS}) == len(READINGS)
    assert READINGS[0].name == "blocked" and READINGS[-1].name == "plain"


def test_a_reading_that_understands_nothing_leaves_the_node_to_the_next():
    seen = []
    silent = Reading("silent", lambda node: True, lambda node, next: seen.append(node.name))
    assert walker(readings=(silent, *READINGS)).plan() == walker().plan()
    assert len(seen) == 2


def test_a_reading_is_asked_where_it_applies_only():
    asked = []
    reading = Reading("of Neg", lambda node: node.op_type == "Neg", lambda node, next: asked.append(node.op_type))
    walker(readings=(reading, *READINGS)).plan()
    assert asked == ["Neg"]


def test_a_reading_may_show_the_others_another_node():
    def run(node, next):
        return next(replace(node, op_type="Abs"))

    steps = (
        walker(readings=(Reading("negative is absolute", lambda node: node.op_type == "Neg", run), *READINGS))
        .plan()
        .steps
    )
    assert [step.op_type for step in steps] == ["Relu", "Abs"]


def test_next_is_what_follows_and_not_what_came_before():
    calls = []

    def run(node, next):
        calls.append(node.name)
        return next(node)

    first = Reading("first", lambda node: True, run)
    walk = walker()
    walk.plan()
    node = walk.node(next(iter(walk.source.model.graph)))
    made = apply_readings(node, (first, *READINGS))
    assert len(calls) == 1 and isinstance(made.facts[0], Stream)


def test_behind_a_blocked_value_nothing_else_is_asked():
    def fail(node, next):
        raise AssertionError(node.name)

    walk = walker("""agraph (float[1,3,T] x) => (float[1,3,T] z) { y = Hardmax<axis=2>(x)  z = Neg(y) }""")
    plan = walk.plan()
    node = walk.node(list(walk.source.model.graph)[1])
    made = apply_readings(node, (named("blocked"), Reading("never", lambda node: True, fail)))
    assert made.facts == (Blocked("z", plan.blockers[0].node),)


class Halved(Visitor):
    """Rewrites every Neg as a product with a half, and then refuses it for the `reason`, if there is one."""

    def __init__(self, walk: Walker, reason: str = ""):
        self.walk, self.reason, self.shown = walk, reason, []

    def before(self, raw, node):
        self.shown.append((raw.op_type, isinstance(self.walk.facts.get(node.outputs[0]), Stream)))
        if raw.op_type == "Neg":
            value = ir.Value(
                name="half",
                const_value=ir.tensor(np.float32([0.5])),
                shape=ir.Shape([1]),
                type=ir.TensorType(ir.DataType.FLOAT),
            )
            self.walk.source.model.graph.register_initializer(value)
            self.walk.learn("half", value)
            raw.op_type = "Mul"
            raw.resize_inputs(2)
            raw.replace_input_with(1, value)

    def after(self, raw, node):
        self.shown.append((raw.op_type, isinstance(self.walk.facts.get(node.outputs[0]), Stream)))
        if self.reason and raw.op_type == "Mul":
            refuse(self.reason, "")


def test_a_visitor_sees_a_node_before_and_after_and_may_rewrite_it():
    walk = walker()
    visitor = Halved(walk)
    plan = walk.plan(visitor)
    assert visitor.shown == [("Relu", False), ("Relu", True), ("Neg", False), ("Mul", True)]
    assert [step.op_type for step in plan.steps] == ["Relu", "Mul"]
    assert isinstance(plan.facts["half"], Static) and not plan.blockers


def test_a_refusal_of_a_visitor_is_that_of_the_node():
    walk = walker()
    plan = walk.plan(Halved(walk, "half of it is not enough"))
    assert [(b.op_type, b.reason) for b in plan.blockers] == [("Neg", "half of it is not enough")]
    assert isinstance(plan.facts["z"], Blocked)
