from __future__ import annotations

import numpy as np
import onnx
import pytest

from testing.oracle import check, parse, rand, refused

CHOICE = """(float[N,4,M] p) {{
            h = {then}
            p = Conv<pads=[1,1]>(h, w, b) }}, else_branch = no () => (float[N,4,M] q) {{
            h = {other}
            q = Mul(h, half) }}>(flag)"""


def chosen(
    then: str = "Relu(x)",
    other: str = "Conv<pads=[3,1]>(x, v, b)",
    flag: str = "flag = Identity(f)",
    extra: str = ", bool f",
    **more: np.ndarray,
) -> onnx.ModelProto:
    return parse(
        f"""agraph (float[1,4,T] x{extra}) => (float[1,4,U] y) {{
        {flag}
        r = If<then_branch = yes () => {CHOICE.format(then=then, other=other)}
        y = Add(r, x) }}""",
        **{"w": rand(4, 4, 3), "v": rand(4, 4, 5), "b": rand(4), "half": np.float32(0.5), **more},
    )


@pytest.mark.parametrize("flag", [True, False])
def test_on_a_static_input(flag):
    """Both branches use the name h, and have their own delay."""
    check(chosen(), axes={"x": 2}, statics={"f": np.array(flag)}, delays={"y": 1})


@pytest.mark.parametrize("flag", [True, False])
def test_on_a_constant(flag):
    model = chosen(flag="flag = Identity(k)", extra="", k=np.array(flag))
    check(model, delays={"y": 1})


def test_constant_condition_beside_a_branch_that_cannot_stream():
    model = chosen("Relu(x)", "Softmax<axis=2>(x)", flag="flag = Identity(k)", extra="", k=np.array(True))
    check(model, delays={"y": 1})


def test_weights_inside_the_branches():
    big = onnx.helper.make_node(
        "Constant",
        [],
        ["inside"],
        value=onnx.numpy_helper.from_array(rand(4, 4, 6000)[:, :, :3] * np.ones((4, 4, 3), np.float32)),
    )
    model = chosen("Conv<pads=[1,1]>(x, inside)")
    choice = next(n for n in model.graph.node if n.op_type == "If")
    next(a for a in choice.attribute if a.name == "then_branch").g.node.insert(0, big)
    check(model, axes={"x": 2}, statics={"f": np.array(True)}, delays={"y": 2}, pulses=(1, 3))


def test_two_of_the_same_names():
    model = parse(
        f"""agraph (float[1,4,T] x, bool flag) => (float[1,4,U] y) {{
        r = If<then_branch = yes () => {CHOICE.format(then="Relu(x)", other="Neg(x)")}
        y = If<then_branch = yes () => {CHOICE.format(then="Tanh(r)", other="Abs(r)")} }}""",
        w=rand(4, 4, 3),
        b=rand(4),
        half=np.float32(0.5),
    )
    check(model, axes={"x": 2}, statics={"flag": np.array(True)}, delays={"y": 2}, pulses=(1, 3))


def test_refuses_a_condition_from_the_stream():
    refused(
        chosen(flag="m = ReduceMax<keepdims=0>(x)\n flag = Greater(m, half)", extra=""),
        "the branch taken is decided at run time",
        axes={"x": 2},
        op_type="If",
    )


def test_refuses_a_condition_from_the_length():
    model = chosen(
        flag="s = Shape(x)\n n = Gather(s, two)\n o = Mod(n, two)\n flag = Equal(o, zero)",
        extra="",
        two=np.int64(2),
        zero=np.int64(0),
    )
    refused(model, "the branch taken is decided at run time", axes={"x": 2}, op_type="If")


def test_refuses_branches_of_different_shapes():
    refused(
        chosen(other="ReduceSum<keepdims=1>(x, chan)", chan=np.int64([1])),
        "its branches give different shapes",
        axes={"x": 2},
        op_type="If",
    )


def test_names_the_node_inside_that_cannot_stream():
    refused(chosen(other="Softmax<axis=2>(x)"), "stream", axes={"x": 2}, op_type="Softmax")


@pytest.mark.parametrize("flag", [True, False])
def test_whole_numbers_of_any_type_that_where_takes(flag):
    model = parse("""agraph (float[1,4,T] x, bool f) => (float[1,4,T] y) {
        g = Identity(f)
        r = If<then_branch = yes () => (uint32[1,4,T] p) { n = Floor(x)
                   m = Abs(n)
                   p = Cast<to=12>(m) },
               else_branch = no () => (uint32[1,4,T] q) { h = Ceil(x)
                   k = Abs(h)
                   q = Cast<to=12>(k) }>(g)
        y = Cast<to=1>(r) }""")
    check(model, axes={"x": 2}, statics={"f": np.array(flag)}, delays={"y": 0})


def test_a_length_compared_with_a_number_it_meets_once_counts_from_behind_it() -> None:
    model = parse(
        """agraph (float[1,4,T] x) => (float[1,4,U] y, float[3] said) {
        y = Conv(x, w)
        s = Shape(y)
        met = Equal(s, two)
        said = Cast<to=1>(met) }""",
        w=rand(4, 4, 3),
        two=np.int64(2),
    )
    assert check(model, delays={"y": 2}).spec["least_frames"] == 5
