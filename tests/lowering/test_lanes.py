"""Rows of a batch that meet in a node: they start and end together, the sidecar says so, and the stream is exact for
any number of them.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pulsify_onnx.api import pulsify
from testing.lanes import APART, TOGETHER
from testing.networks import network
from testing.oracle import check, parse, rand, refused
from testing.rowing import batched, check_rows

ONE = np.asarray([1])
PADDED = "p = Pad(a, pads, fill)"
SAME = "a = Conv<pads=[1,1]>(x, w, b)"
ROWS = (1, 2, 3, 5)


def first(
    body: str, dims: str = "T,B,4", pads: tuple[int, ...] = (3, 0, 0, 0, 0, 0), opset: int = 17, **weights: np.ndarray
) -> onnx.ModelProto:
    """`body` on `p`: `x` behind frames of one number."""
    text = (
        f'<ir_version: 8, opset_import: ["": {opset}]>\nagraph (float[{dims}] x) => '
        f"(float[{','.join('UVWXYZ'[: dims.count(',') + 1])}] y) {{ p = Pad(x, pads, fill)\n{body} }}"
    )
    model = parse(text, pads=np.asarray(pads), fill=np.float32(weights.pop("fill", np.float32(0.7))), **weights)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


MEETINGS = {
    "sum": first("y = ReduceSum<keepdims=1>(p, one)", one=ONE),
    "sum of squares": first("y = ReduceSumSquare<axes=[1], keepdims=1>(p)"),
    "product of as many": first("y = ReduceProd<axes=[1], keepdims=1>(p)", fill=np.float32(-1)),
    "sum without its axis": first("y = ReduceSum<keepdims=0>(p, one)", one=ONE),
    "softmax": first("y = Softmax<axis=1>(p)"),
    "flattened softmax": first("y = Softmax<axis=1>(p)", opset=12),
    "merged, softmax": first("r = Reshape(p, keep)\n y = Softmax(r)", keep=np.asarray([0, -1])),
    "running sum": first("y = CumSum(p, one)", one=np.int64(1)),
    "unit length": first("y = LpNormalization<axis=1>(p)"),
    "einsum": first('y = Einsum<equation="tbc->tc">(p)'),
    "einsum with an ellipsis": first('y = Einsum<equation="...bc->...c">(p)'),
    "matrix product": first("q = Transpose<perm=[0,2,1]>(p)\n y = MatMul(q, p)"),
    "padded rows": first("y = Pad(p, more, five)", more=np.asarray([0, 1, 0, 0, 2, 0]), five=np.float32(5)),
    "first row": first("y = Gather<axis=1>(p, zero)", zero=np.int64(0)),
    "rows twice": first("y = Concat<axis=1>(p, p)"),
    "normalised": first("y = LayerNormalization<axis=1>(q, four)".replace("q", "p"), four=rand(4)),
    "local response": first("y = LRN<size=3, alpha=1.0>(p)", "T,C,2,2", (3, 0, 0, 0, 0, 0, 0, 0)),
    "then convolved": first(
        "s = ReduceSum<keepdims=1>(p, one)\n m = Sub(p, s)\n t = Transpose<perm=[1,2,0]>(m)\n y = "
        "Conv<pads=[2,2]>(t, w, b)",
        one=ONE,
        w=rand(4, 4, 3),
        b=rand(4),
    ),
}


@pytest.mark.parametrize("name", MEETINGS)
def test_a_border_of_all_rows(name: str) -> None:
    for rows in ROWS:
        pulsed = check(MEETINGS[name], axes={"x": 0}, pulses=(1, 3, 32), rows=rows)
    assert pulsed.spec["independent_rows"] is False and pulsed.spec["shared_by"]


@pytest.mark.parametrize(
    "body",
    [
        "y = ReduceMean<axes=[1], keepdims=1>(p)",
        "y = ReduceMax<axes=[1], keepdims=1>(p)",
        "y = Gather<axis=1>(p, zero)",
    ],
)
def test_a_border_that_any_number_of_rows_agrees_on_needs_no_state(body: str) -> None:
    model = first(
        f"{body.replace('y =', 's =')}\n t = Transpose<perm=[1,2,0]>(s)\n y = Conv(t, w)",
        w=rand(4, 4, 4),
        zero=np.asarray([0]),
    )
    for rows in ROWS:
        check(model, axes={"x": 0}, pulses=(1, 3), rows=rows, delays={"y": 0}, state_bytes=3 * 4 * 4 + 8)


def test_a_border_of_features_of_any_number() -> None:
    model = first("y = Softmax<axis=1>(p)", "1,C,T", (0, 0, 3, 0, 0, 0))
    for features in ROWS:
        check(model, axes={"x": 2}, pulses=(1, 3), rows=features)


@pytest.mark.parametrize("frames", [np.ones([2, 1, 1, 2], np.float32), rand(2, 1, 1, 2)])
def test_frames_that_fit_one_number_of_rows(frames: np.ndarray) -> None:
    model = parse(
        "agraph (float[B,1,T,2] x) => (float[C,1,U,2] y) { c = Concat<axis=2>(frames, x)\n y = Softmax<axis=0>(c) }",
        frames=frames,
    )
    assert check(model, axes={"x": 2}, pulses=(1, 3), rows=2).spec["independent_rows"] is False


def test_first_frames_of_every_row_that_never_come() -> None:
    frames = rand(2, 1, 3, 2)
    model = parse(
        "agraph (float[B,1,T,2] x) => (float[B,1,U,2] y) { y = Concat<axis=2>(frames, x) }",
        frames=np.repeat(frames[:, :, :1], 3, 2),
    )
    pulsed = pulsify(model, pulse=4, axes={"x": 2}, allow_advance=True)
    assert pulsed.spec["outputs"][0]["delay"] == -3
    np.testing.assert_array_equal(
        np.asarray(pulsed.spec["outputs"][0]["first_frames"], np.float32), np.repeat(frames[:, :, :1], 3, 2)
    )


@pytest.mark.parametrize(
    "body, reason",
    [
        ("y = Pad(x, cut)", "crops an axis of unknown size"),
        ("y = Expand(x, two)", "repeats an axis of B entries 2 times"),
    ],
)
def test_rows_cropped_or_repeated_are_refused(body: str, reason: str) -> None:
    refused(
        parse(
            f"agraph (float[B,4,T] x) => (float[C,4,U] y) {{ {body} }}",
            cut=np.asarray([-1, 0, 0, 0, 0, 0]),
            two=np.asarray([2, 1, 1]),
        ),
        reason,
    )


def test_rows_expanded_to_what_they_are() -> None:
    body = (
        "s = Shape(x)\n n = Slice(s, zero, one)\n to = Concat<axis=0>(n, one, one)\n e = Expand(x, to)\n y = "
        "Expand(e, ones)"
    )
    check_rows(
        parse(
            f"agraph (float[B,4,T] x) => (float[B,4,U] y) {{ {body} }}",
            zero=ONE * 0,
            one=ONE,
            ones=np.asarray([1, 4, 1]),
        ),
        pulses=(1, 3),
    )


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(1, 8),
    pulse=st.integers(1, 9),
    pick=st.integers(0, 24),
    rows=st.integers(2, 4),
)
def test_networks_in_which_rows_meet(seed: int, size: int, pulse: int, pick: int, rows: int) -> None:
    net = network(seed, size, TOGETHER)
    check(
        batched(net.model),
        axes={v.name: 2 for v in net.model.graph.input if v.name != "gain"},
        pulses=(pulse,),
        length=net.lengths[pick],
        unit=net.unit,
        shortest=net.lengths[0],
        rtol=2e-3,
        rows=rows,
    )


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10**6), size=st.integers(1, 8), pulse=st.integers(1, 9))
def test_networks_in_which_rows_are_apart(seed: int, size: int, pulse: int) -> None:
    net = network(seed, size, APART)
    model = batched(net.model)
    check_rows(
        model,
        axes={v.name: 2 for v in net.model.graph.input if v.name != "gain"},
        pulses=(pulse,),
        unit=net.unit,
        shortest=net.lengths[0],
        rtol=2e-3,
        rows=4,
    )
