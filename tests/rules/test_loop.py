from __future__ import annotations

import numpy as np
import onnx
import pytest

from testing.oracle import check, parse, rand, refused

LEAKY = """(int64 i, bool go, float[4] h) => (bool again, float[4] h2, float[4] o) {
            again = Identity(go)
            u = Gather<axis=1>(c, i)
            v = Squeeze(u, zero)
            p = Mul(h, decay)
            h2 = Add(p, v)
            o = Tanh(h2) }"""

SAME = """t = Transpose<perm=[0,2,1]>(x)
        d = Conv<pads=[1,1]>(t, w, b)
        c = Transpose<perm=[0,2,1]>(d)"""


def looped(
    body: str = LEAKY, before: str = "c = Identity(x)", outs: str = "float[U,4] y", final: str = "f", **more: np.ndarray
) -> onnx.ModelProto:
    return parse(
        f"""agraph (float[1,T,4] x) => ({outs}) {{
        {before}
        s = Shape(x)
        n = Gather(s, k1)
        {final}, y = Loop<body = body {body}>(n, yes, h0) }}""",
        **{
            "decay": np.float32([0.5, 0.9, 0.7, 0.2]),
            "h0": rand(4, seed=2),
            "w": rand(4, 4, 3),
            "b": rand(4),
            "k1": np.int64(1),
            "zero": np.int64([0]),
            "yes": np.array(True),
            **more,
        },
    )


def body(reads: str, state: str = "p = Mul(h, decay)\n h2 = Add(p, v)\n o = Tanh(h2)") -> str:
    return (
        "(int64 i, bool go, float[4] h) => (bool again, float[4] h2, float[4] o) { again = Identity(go)\n "
        f"{reads}\n {state} }}"
    )


def test_over_the_frames():
    check(looped(), delays={"y": 0})


def test_warm_up_holds_the_initial_value():
    check(looped(before=SAME), delays={"y": 1})


def test_final_value():
    check(looped(before=SAME, outs="float[U,4] y, float[4] h", final="h"), delays={"y": 1})


def test_slices_of_one_frame():
    reads = (
        "j = Add(i, one)\n a = Unsqueeze(i, zero)\n e = Unsqueeze(j, zero)\n u = Slice(c, a, e, ax)\n v = "
        "Squeeze(u, both)"
    )
    check(looped(body(reads), before=SAME, one=np.int64(1), ax=np.int64([1]), both=np.int64([0, 1])), delays={"y": 1})


def test_frames_of_whole_slices():
    """Exporters of scripted modules write ``x[:, i]`` as a slice that keeps all, and its axes as computed constants."""
    reads = """ax = Unsqueeze(k0, zero)
        by = Unsqueeze(k1, zero)
        all = Slice(c, zero, far, ax, by)
        most = Slice(all, zero, far)
        u = Gather<axis=1>(most, i)
        v = Squeeze(u, zero)"""
    check(looped(body(reads), before=SAME, far=np.int64([2**63 - 1]), k0=np.int64(0)), delays={"y": 1})


def test_slices_of_some_frames_are_refused():
    reads = "rest = Slice(c, zero, far, ax, by)\n u = Gather<axis=1>(rest, i)\n v = Squeeze(u, zero)"
    refused(
        looped(body(reads), far=np.int64([2**63 - 1]), ax=np.int64([1]), by=np.int64([2])),
        "something else than the iteration number",
        op_type="Loop",
    )


def test_an_index_with_a_dimension():
    check(
        looped(body("a = Unsqueeze(i, zero)\n u = Gather<axis=1>(c, a)\n v = Squeeze(u, both)"), both=np.int64([0, 1])),
        delays={"y": 0},
    )


def test_the_frame_after():
    model = looped(
        body(
            "j = Add(i, k1)\n g = Gather<axis=1>(c, i)\n u = Gather<axis=1>(c, j)\n k = Sub(u, g)\n v = Squeeze(k, "
            "zero)"
        ),
        before=SAME,
    )
    node = next(n for n in model.graph.node if n.op_type == "Loop")
    node.input[0] = "fewer"
    model.graph.node.insert(len(model.graph.node) - 1, onnx.helper.make_node("Sub", ["n", "k1"], ["fewer"]))
    check(model, delays={"y": 2})


def test_the_number_of_the_frame():
    reads = "u = Gather<axis=1>(c, i)\n w0 = Squeeze(u, zero)\n q = Cast<to=1>(i)\n v = Add(w0, q)"
    check(looped(body(reads), before=SAME), delays={"y": 1})


def test_a_table_by_the_number_of_the_frame():
    reads = "u = Gather<axis=1>(c, i)\n w0 = Squeeze(u, zero)\n r = Gather(table, i)\n v = Add(w0, r)"
    check(looped(body(reads), before=SAME, table=rand(900, 4)), delays={"y": 1}, pulses=(1, 3))


def test_nothing_but_the_number():
    check(
        parse(
            """agraph (float[T,1] x) => (float[U,1] y) {
        s = Shape(x)
        n = Gather(s, k0)
        f, r = Loop<body = body (int64 i, bool go, float[1] h) => (bool again, float[1] h2, float[1] o) {
            again = Identity(go)
            q = Cast<to=1>(i)
            p = Mul(h, decay)
            h2 = Add(p, q)
            o = Sin(h2) }>(n, , h0)
        y = Add(x, r) }""",
            k0=np.int64(0),
            decay=np.float32([0.5]),
            h0=np.float32([0.3]),
        ),
        delays={"y": 0},
    )


def test_a_frame_passed_on_and_a_constant_condition():
    text = """(int64 i, bool go, float[4] h) => (bool again, float[4] h2, float[4] o) {
            again = Constant<value = bool {1}>()
            u = Gather<axis=1>(c, i)
            h2 = Squeeze(u, zero)
            o = Identity(h) }"""
    check(looped(text, before=SAME), delays={"y": 1})


def test_refuses_a_condition():
    text = LEAKY.replace("again = Identity(go)", "m = ReduceMax<keepdims=0>(h)\n again = Less(m, hundred)")
    refused(
        looped(text, hundred=np.float32(100)), "how often it runs is decided at run time", axes={"x": 1}, op_type="Loop"
    )


def test_refuses_a_trip_count_from_outside():
    model = parse(
        f"""agraph (float[1,T,4] x, int64 n) => (float[U,4] y) {{
        c = Identity(x)
        f, y = Loop<body = body {LEAKY}>(n, , h0) }}""",
        h0=rand(4),
        decay=rand(4),
        zero=np.int64([0]),
    )
    refused(model, "how often it runs is decided at run time", axes={"x": 1})


def test_refuses_a_fixed_trip_count():
    model = looped()
    next(n for n in model.graph.node if n.op_type == "Loop").input[0] = "ten"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.int64(10), "ten"))
    refused(model, "it runs 10 times, whatever the length of the stream", axes={"x": 1})


def test_refuses_the_whole_stream():
    refused(
        looped(body("u = ReduceMean<axes=[1], keepdims=0>(c)\n v = Squeeze(u, zero)")),
        "reads the whole of the stream",
        axes={"x": 1},
    )


def test_refuses_other_indices():
    refused(
        looped(body("j = Mul(i, i)\n u = Gather<axis=1>(c, j)\n v = Squeeze(u, zero)")),
        "by something else than the iteration number",
        axes={"x": 1},
    )
    refused(
        looped(body("j = Sub(i, k1)\n u = Gather<axis=1>(c, j)\n v = Squeeze(u, zero)")),
        "counted from the end of the whole stream",
        axes={"x": 1},
    )


def test_refuses_frames_past_the_end():
    refused(
        looped(body("j = Add(i, k1)\n u = Gather<axis=1>(c, j)\n v = Squeeze(u, zero)")),
        "rounds do not fit",
        axes={"x": 1},
    )


def test_refuses_a_state_that_grows():
    model = parse(
        """agraph (float[T,4] x) => (float[U,4] y) {
        s = Shape(x)
        n = Gather(s, k0)
        y = Loop<body = body (int64 i, bool go, float[N,4] h) => (bool again, float[M,4] h2) {
            again = Identity(go)
            u = Gather(x, i)
            v = Unsqueeze(u, z)
            h2 = Concat<axis=0>(h, v) }>(n, , h0) }""",
        h0=rand(1, 4),
        k0=np.int64(0),
        z=np.int64([0]),
    )
    refused(model, "changes its shape from [1, 4] to [2, 4]", axes={"x": 0})


def test_two_streams_of_different_delay():
    reads = "u = Gather<axis=1>(c, i)\n g = Gather<axis=1>(x, i)\n k = Sub(u, g)\n v = Squeeze(k, zero)"
    check(looped(body(reads), before=SAME, outs="float[U,4] y, float[4] h", final="h"), delays={"y": 1}, pulses=(1, 3))


@pytest.mark.parametrize("reads", ("f = Gather<axis=0>(x, i)", "f = Cast<to=1>(i)"))
def test_the_number_of_a_round_where_frames_are_cut_off_at_the_end(reads):
    """A frame has its own number as long as nobody knows that it is past the end."""
    check(
        parse(
            f"""agraph (float[T,3] x) => (float[U,3] y) {{
        s = Shape<start=0,end=1>(x) k = Sub(s, five) n = Squeeze(k)
        y = Loop<body = b (int64 i, bool c0) => (bool c1, float[3] o) {{
            c1 = Identity(c0) {reads} g = Cast<to=1>(i) h = Add(f, g) o = Expand(h, three) }}>(n, c) }}""",
            five=np.array([5]),
            three=np.array([3]),
            c=np.array(True),
        ),
        length=20,
    )
