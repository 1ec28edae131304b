"""Whether rows are apart is asked of the rules, along the batch: every operator that streams has an answer there."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from pulsify_onnx.algebra.plan import Options
from pulsify_onnx.analysis.axis import choose
from pulsify_onnx.analysis.batch_axis import mixing
from pulsify_onnx.api import pulsify
from pulsify_onnx.model.load import load
from testing.families import FAMILIES
from testing.oracle import parse, rand
from testing.rowing import batched, check_rows

CONTRIB = '<ir_version: 10, opset_import: ["": 18, "com.microsoft": 1]>\n'


def named(model: onnx.ModelProto, **axes: int) -> tuple[str, ...]:
    """The nodes that do not keep rows apart."""
    source = load(model)
    _, plan = choose(source, axes, Options())
    assert not plan.blockers, plan.blockers
    return mixing(source, plan)


SEVERAL = "float[B,T,3,3] x", "float[B,U,3,3] y"

APART = {
    "determinants": ("float[B,T,3,3] x", "float[B,U] y", "y = Det(x)"),
    "inverses": (*SEVERAL, "y = com.microsoft.Inverse(x)"),
    "triangles": (*SEVERAL, "y = Trilu<upper=1>(x)"),
    "largest": ("float[B,T,5] x", "float[B,U,2] y", "y, i = TopK<axis=2>(x, two)"),
    "picked": ("float[B,T,3] x", "float[B,U,3] y", "i = ArgMax<axis=2>(x)\n y = GatherElements<axis=2>(x, i)"),
    "space": ("float[B,4,T,6] x", "float[B,1,U,12] y", "y = DepthToSpace<blocksize=2>(x)"),
    "counted": ("float[B,4,T] x", "float[B,4,U] y", "c = CumSum(x, two0)\n y = Conv<pads=[1,1]>(c, w, b)"),
    "cropped": ("float[B,4,T] x", "float[B,2,U] y", "y = CenterCropPad<axes=[1]>(x, two)"),
    "normalised": ("float[B,4,T] x", "float[B,4,U] y", "y = LpNormalization<axis=1>(x)"),
    "rows and frames merged": (
        "float[B,T,4] x",
        "float[B,U,4] y",
        "f = Reshape(x, flat)\n m = MatMul(f, mix)\n n = Shape(x)\n y = Reshape(m, n)",
    ),
    "sums": ("float[B,4,T] x", "float[B,4,U] y", "c = Conv<pads=[1,1]>(x, w, b)\n y = Sum(c, x, x)"),
}
WEIGHTS = dict(two=np.int64([2]), two0=np.int64(2), w=rand(4, 4, 3), b=rand(4), mix=rand(4, 4), flat=np.int64([-1, 4]))


@pytest.mark.parametrize("name", APART)
def test_rows_that_are_apart(name: str) -> None:
    inputs, outputs, body = APART[name]
    axis = [d.strip() for d in inputs[inputs.index("[") + 1 : inputs.index("]")].split(",")].index("T")
    check_rows(
        parse(f"{CONTRIB}agraph ({inputs}) => ({outputs}) {{ {body} }}", **WEIGHTS),
        axes={"x": axis},
        pulses=(2,),
        shortest=3,
    )


MIXED = {
    "mean": ("m = ReduceMean<axes=[0], keepdims=1>(x)\n y = Sub(x, m)", "m"),
    "softmax": ("s = Softmax<axis=0>(x)\n y = Identity(s)", "s"),
    "sum so far": ("s = CumSum(x, none)\n y = Relu(s)", "s"),
    "channels for rows": (
        "t = Transpose<perm=[1,0,2]>(x)\n s = Softmax<axis=1>(t)\n y = Transpose<perm=[1,0,2]>(s)",
        "s",
    ),
    "products": (
        "t = Transpose<perm=[2,1,0]>(x)\n r = Transpose<perm=[2,0,1]>(x)\n m = MatMul(t, r)\n u = "
        "Transpose<perm=[1,2,0]>(m)\n y = Relu(u)",
        "m",
    ),
}


@pytest.mark.parametrize("name", MIXED)
def test_the_node_that_mixes_rows_is_named(name: str) -> None:
    body, node = MIXED[name]
    model = parse(f"agraph (float[B,4,T] x) => (float[C,4,U] y) {{ {body} }}", none=np.int64(0))
    assert named(model, x=2) == (node,)
    spec = pulsify(model, pulse=4, axes={"x": 2}).spec
    assert spec["independent_rows"] is False and spec["shared_by"] == [node]


def test_a_state_whose_rows_are_elsewhere() -> None:
    """What is fed back must have the rows where the state that it becomes has them."""
    text = """agraph (float[T,B,4] x, float[1,B,5] h0) => (float[U,1,B,5] y, float[1,B,5] h) {{
        y, g = GRU<hidden_size=5>(x, wi, wr, wb, , h0)
        h = {0}(g) }}"""
    weights = dict(wi=rand(1, 15, 4), wr=rand(1, 15, 5), wb=rand(1, 30))
    spec = pulsify(parse(text.format("Identity"), **weights), pulse=4, axes={"x": 0}, states={"h0": "h"}).spec
    assert spec.get("independent_rows", True)


def test_a_batch_on_two_axes_of_an_input() -> None:
    model = parse("agraph (float[B,B,T] x, float[1,4,T] z) => (float[B,B,U] y) { y = Relu(x) }")
    assert named(model, x=2) == ("x",)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_an_answer(family: str) -> None:
    """Rows of all the small models are apart, by the rules alone."""
    if family == "shapes":
        pytest.skip("it reads its batch of 1 into a reshape of the stream")
    assert named(batched(FAMILIES[family]())) == ()
