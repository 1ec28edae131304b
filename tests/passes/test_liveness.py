"""Steps that no output is computed from are left out."""

from __future__ import annotations

import onnx_ir as ir

from pulsify_onnx.algebra.attributes import Attribute
from pulsify_onnx.algebra.facts import Static
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Op, Plan, QueryKeyRead, Ref, State
from pulsify_onnx.passes.liveness import live
from testing.plans import op, plan, read, step, stream

OUTER = Static("outer", ir.DataType.FLOAT, (Length.of(1),))


def kept(made: Plan) -> list[str]:
    return [wire for s in live(made).steps for wire in s.wires]


def test_only_what_outputs_read_is_kept() -> None:
    steps = [
        step("a", read("x")),
        step("b", op("Neg", read("a"))),
        step("c", op("Abs", read("a"))),
        step("y", op("Neg", read("c", 3))),
    ]
    assert (
        kept(plan(steps)) == ["a", "c", "y"]
        and kept(plan(steps, ("y", "b"))) == ["a", "b", "c", "y"]
        and kept(plan(steps, ("x",))) == []
    )


def test_an_output_may_be_carried_by_another_wire() -> None:
    assert kept(plan([step("a", read("x")), step("y", op("Neg", read("x")))], facts={"y": stream("a")})) == ["a"]


def test_every_way_to_read() -> None:
    state = State("s", ir.DataType.FLOAT, (Length.of(1),), op("Sum", read("in_state")), "test")
    steps = [step(name, op("Neg", read("x"))) for name in ("in_state", "static", "grid", "past", "unused")]
    y = step("y", op("Sum", Ref("static"), QueryKeyRead("grid", (0, 0), (0, 0))), states=[state], history="past")
    assert kept(plan([*steps, y])) == ["in_state", "static", "grid", "past", "y"]


def test_subgraphs_read_by_name() -> None:
    add = ir.node("Add", [ir.Value(name="outer"), ir.Value(name="carried")])
    body = ir.Graph([], add.outputs, nodes=[add], opset_imports={"": 17}, name="body")
    steps = [
        step("outer", op("Neg", read("x")), OUTER),
        step("wire", op("Neg", read("x"))),
        step("unused", op("Neg", read("x"))),
    ]
    y = step("y", Op("If", (Ref("flag"),), (("then_branch", Attribute(ir.AttrGraph("then_branch", body))),)))
    assert kept(plan([*steps, y], facts={"carried": stream("wire")})) == ["outer", "wire", "y"]
