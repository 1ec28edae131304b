from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pulsify_onnx.api import pulsify
from pulsify_onnx.errors import PulsifyError
from testing.oracle import check, parse, rand, refused

EMA = """(float[1,4] s, float[1,4] u) => (float[1,4] s2, float[1,4] v) {
            p = Mul(s, decay)
            s2 = Add(p, u)
            v = Tanh(s2) }"""


def ema(
    before: str = "c = Identity(x)",
    attrs: str = "scan_input_axes=[1], scan_output_axes=[1]",
    start: np.ndarray | None = None,
    outs: str = "float[1,U,4] y",
    final: str = "",
) -> onnx.ModelProto:
    return parse(
        f"""agraph (float[1,T,4] x) => ({outs}) {{
        {before}
        {final or "f"}, y = Scan<num_scan_inputs=1, {attrs}, body = body {EMA}>(s0, c) }}""",
        decay=np.float32([[0.5, 0.9, 0.7, 0.2]]),
        s0=rand(1, 4, seed=2) if start is None else start,
        w=rand(4, 4, 3),
        b=rand(4),
    )


SAME = """t = Transpose<perm=[0,2,1]>(x)
        d = Conv<pads=[1,1]>(t, w, b)
        c = Transpose<perm=[0,2,1]>(d)"""


def test_initial_state_that_is_not_zero():
    check(ema(), delays={"y": 0}, state_bytes=16 + 8)


def test_zero_state_needs_no_clock():
    check(ema(start=np.zeros((1, 4), np.float32)), delays={"y": 0}, state_bytes=16)


def test_warm_up_holds_the_initial_state():
    check(ema(SAME), delays={"y": 1})


def test_final_state_is_a_running_value():
    check(ema(SAME, outs="float[1,U,4] y, float[1,4] fin", final="fin"), delays={"y": 1})


def test_final_state_after_a_crop_at_the_end():
    crop = "c = Slice(x, k0, k1, k1_)"
    model = ema(crop, outs="float[1,U,4] y, float[1,4] fin", final="fin")
    for name, value in (("k0", 0), ("k1", -2), ("k1_", 1)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray([value], np.int64), name))
    check(model, delays={"y": 0})


def test_results_along_another_axis():
    check(ema(SAME, "scan_input_axes=[-2], scan_output_axes=[-1]", outs="float[1,4,U] y"), delays={"y": 1})


def test_two_streams_of_different_delay_two_states_one_a_scalar():
    check(
        parse(
            """agraph (float[T,4] x) => (float[U,4] y, float[U] n, float last) {
        t = Unsqueeze(x, zero)
        u = Transpose<perm=[0,2,1]>(t)
        d = Conv<pads=[1,1]>(u, w, b)
        e = Transpose<perm=[0,2,1]>(d)
        c = Squeeze(e, zero)
        f, last, y, n = Scan<num_scan_inputs=2, body = body (float[4] s, float k, float[4] u1, float[4] v1) => (float[4] s2, float k2, float[4] o, float k3) {
            p = Mul(s, decay)
            q = Sub(u1, v1)
            s2 = Add(p, q)
            k2 = Add(k, one)
            k3 = Identity(k2)
            o = Mul(s2, k2) }>(s0, k0, x, c) }""",
            decay=np.float32([0.5, 0.9, 0.7, 0.2]),
            s0=rand(4),
            k0=np.float32(3),
            one=np.float32(1),
            zero=np.int64([0]),
            w=rand(4, 4, 3),
            b=rand(4),
        ),
        delays={"y": 1, "n": 1},
    )


def test_states_of_integers_and_flags():
    check(
        parse(
            """agraph (float[T,1] x) => (int64[U,1] y, bool[U,1] z) {
        t = Unsqueeze(x, zero)
        u = Transpose<perm=[0,2,1]>(t)
        d = Conv<pads=[1,1]>(u, w, b)
        e = Transpose<perm=[0,2,1]>(d)
        c = Squeeze(e, zero)
        f, g, y, z = Scan<num_scan_inputs=1, body = body (int64[1] s, bool[1] k, float[1] u1) => (int64[1] s2, bool[1] k2, int64[1] o, bool[1] k3) {
            up = Greater(u1, decay)
            i = Cast<to=7>(up)
            s2 = Add(s, i)
            k2 = Xor(k, up)
            k3 = Identity(k2)
            o = Identity(s2) }>(s0, k0, c) }""",
            decay=np.float32([0.1]),
            s0=np.int64([5]),
            k0=np.array([True]),
            zero=np.int64([0]),
            w=rand(1, 1, 3),
            b=rand(1),
        ),
        delays={"y": 1},
    )


def test_start_from_a_static_input():
    model = parse(
        f"""agraph (float[1,T,4] x, float[1,4] s0) => (float[1,U,4] y, float[1,4] f) {{
        {SAME}
        f, y = Scan<num_scan_inputs=1, scan_input_axes=[1], scan_output_axes=[1], body = body {EMA}>(s0, c) }}""",
        decay=np.float32([[0.5, 0.9, 0.7, 0.2]]),
        w=rand(4, 4, 3),
        b=rand(4),
    )
    check(model, axes={"x": 1}, delays={"y": 1})


def test_behind_padding():
    model = ema("t = Pad(x, pads, fill)\n c = Identity(t)")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.int64([0, 2, 0, 0, 1, 0]), "pads"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.7), "fill"))
    check(model)


def test_body_reads_a_computed_outer_value():
    check(
        parse(
            """agraph (float[1,T,4] x, float[1,4] g) => (float[1,U,4] y) {
        decay = Sigmoid(g)
        f, y = Scan<num_scan_inputs=1, scan_input_axes=[1], scan_output_axes=[1], body = body """
            + EMA
            + """>(s0, x) }""",
            s0=rand(1, 4),
        ),
        axes={"x": 1},
        delays={"y": 0},
    )


def test_without_states():
    check(
        parse("""agraph (float[T,4] x) => (float[U,4] y) {
        y = Scan<num_scan_inputs=1, body = body (float[4] u) => (float[4] v) { v = Softmax<axis=0>(u) }>(x) }"""),
        delays={"y": 0},
    )


def test_old_opset():
    model = parse(
        '<ir_version: 4, opset_import: ["": 9]>\n'
        + """agraph (float[T,4] x) => (float[U,4] y) {
        f, y = Scan<num_scan_inputs=1, body = body (float[4] s, float[4] u) => (float[4] s2, float[4] v) {
            p = Mul(s, decay)
            s2 = Add(p, u)
            v = Tanh(s2) }>(s0, x) }""",
        decay=rand(4),
        s0=rand(4),
    )
    check(model, delays={"y": 0})


def test_symbolic_batch():
    model = parse(
        """agraph (float[B,T,4] x) => (float[B,U,4] y) {
        s = Shape(x)
        n = Gather(s, zero)
        k = Concat<axis=0>(n, four)
        s0 = ConstantOfShape(k)
        f, y = Scan<num_scan_inputs=1, scan_input_axes=[1], scan_output_axes=[1], body = body (float[B,4] s, float[B,4] u) => (float[B,4] s2, float[B,4] v) {
            p = Mul(s, decay)
            s2 = Add(p, u)
            v = Tanh(s2) }>(s0, x) }""",
        decay=rand(4),
        zero=np.int64([0]),
        four=np.int64([4]),
    )
    check(model, axes={"x": 1}, delays={"y": 0})


def test_refuses_backwards():
    refused(
        ema(attrs="scan_input_axes=[1], scan_output_axes=[1], scan_input_directions=[1]"),
        "it scans from the last frame to the first",
        axes={"x": 1},
        op_type="Scan",
    )
    refused(
        ema(attrs="scan_input_axes=[1], scan_output_axes=[1], scan_output_directions=[1]"),
        "it scans from the last frame to the first",
        axes={"x": 1},
    )


def test_refuses_another_axis():
    model = parse(
        """agraph (float[3,T,4] x) => (float[3,T,4] y) {
        f, y = Scan<num_scan_inputs=1, body = body (float[T,4] s, float[T,4] u) => (float[T,4] s2, float[T,4] v) {
            s2 = Add(s, u)
            v = Tanh(s2) }>(s0, x) }""",
        s0=rand(1, 4),
    )
    refused(model, "it scans another axis than the stream's", axes={"x": 1})


def test_refuses_an_input_of_fixed_length():
    model = parse(
        """agraph (float[T,4] x) => (float[U,4] y) {
        y = Scan<num_scan_inputs=2, body = body (float[4] u, float[4] k) => (float[4] v) { v = Mul(u, k) }>(x, table) }""",
        table=rand(20, 4),
    )
    refused(model, "scan input 1 has a fixed number of frames", axes={"x": 0})


def test_refuses_an_outer_stream():
    model = parse("""agraph (float[T,4] x) => (float[U,4] y) {
        y = Scan<num_scan_inputs=1, body = body (float[4] u) => (float[4] v) {
            m = ReduceMax<axes=[0], keepdims=0>(x)
            v = Sub(u, m) }>(x) }""")
    refused(model, "its body reads the whole of the stream", axes={"x": 0})


def test_refuses_random_numbers():
    model = parse("""agraph (float[T,4] x) => (float[U,4] y) {
        y = Scan<num_scan_inputs=1, body = body (float[4] u) => (float[4] v) {
            n = RandomNormalLike(u)
            v = Add(u, n) }>(x) }""")
    refused(model, "it draws random numbers", axes={"x": 0})


def test_refuses_the_old_scan():
    body = helper.make_graph(
        [helper.make_node("Add", ["s", "u"], ["s2"]), helper.make_node("Identity", ["s2"], ["v"])],
        "body",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in ("s", "u")],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in ("s2", "v")],
    )
    graph = helper.make_graph(
        [helper.make_node("Scan", ["", "s0", "x"], ["f", "y"], num_scan_inputs=1, body=body)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "T", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, "U", 4])],
        [onnx.numpy_helper.from_array(np.zeros((1, 4), np.float32), "s0")],
    )
    with pytest.raises(PulsifyError, match="Scan"):
        pulsify(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 8)], ir_version=4),
            pulse=None,
            axes={"x": 1},
        )


def test_indices_past_the_end_are_not_looked_up():
    check(
        parse(
            """agraph (int64[T] x) => (float[U,4] y) {
        c = Slice(x, k0, k1)
        y = Scan<num_scan_inputs=1, body = body (int64 u) => (float[4] v) { v = Gather(table, u) }>(c) }""",
            table=rand(3, 4),
            k0=np.int64([0]),
            k1=np.int64([-1]),
        ),
        delays={"y": 0},
    )


def test_a_branch_inside_the_body():
    check(
        parse(
            """agraph (float[T,4] x) => (float[U,4] y) {
        f, y = Scan<num_scan_inputs=1, body = body (float[4] s, float[4] u) => (float[4] s2, float[4] v) {
            g = Mul(u, decay)
            m = ReduceSum<keepdims=0>(u)
            pos = Greater(m, zero)
            r = If<then_branch = yes () => (float[4] a) { k = Constant<value = float[4] {1.0, 2.0, 3.0, 4.0}>()
              a = Add(g, k) }, else_branch = no () => (float[4] a) { k = Mul(s, half)
              a = Sub(g, k) }>(pos)
            s2 = Add(r, half)
            v = Tanh(s2) }>(s0, x) }""",
            decay=rand(4),
            s0=rand(4),
            zero=np.float32(0),
            half=np.float32(0.5),
        ),
        axes={"x": 0},
        delays={"y": 0},
        pulses=(1, 3),
    )


def test_frame_numbers_beside_a_delayed_stream():
    check(
        parse(
            """agraph (float[1,T,1] x) => (float[U,1] y) {
        t = Transpose<perm=[0,2,1]>(x)
        d = Conv<pads=[1,1]>(t, w, b)
        e = Transpose<perm=[0,2,1]>(d)
        c = Squeeze(e, zeros)
        s = Shape(x)
        n = Gather(s, one)
        i = Range(zero, n, one)
        f, y = Scan<num_scan_inputs=2, body = body (float[1] s, int64 k, float[1] u) => (float[1] s2, float[1] v) {
            q = Cast<to=1>(k)
            p = Mul(q, u)
            h = Mul(s, half)
            s2 = Add(p, h)
            v = Tanh(s2) }>(s0, i, c) }""",
            w=rand(1, 1, 3),
            b=rand(1),
            s0=rand(1),
            half=np.float32(0.5),
            zeros=np.int64([0]),
            zero=np.int64(0),
            one=np.int64(1),
        ),
        delays={"y": 1},
        pulses=(1, 3),
    )
