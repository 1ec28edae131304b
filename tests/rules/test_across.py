"""Operators with a recurrence or a sequence of their own at every frame: the stream runs along what they take for
the batch.
"""

import numpy as np
import onnx
import onnx.helper
import pytest

from pulsify_onnx.api import pulsify
from testing.oracle import check, parse, rand, refused

QUICK = dict(pulses=(1, 3, 7))
FIRST = """s = Shape(a)
    n = Slice(s, zero, one)
    whole = Concat<axis=0>(n, four)
    s0 = Expand(start, whole)"""
K = dict(
    zero=np.int64([0]),
    one=np.int64([1]),
    four=np.int64([4]),
    start=rand(1, 4, seed=5),
    decay=rand(4, seed=3),
    mix=rand(4, 4, seed=4),
)
DELAYED = """c = Transpose<perm=[1,2,0]>(x)
    d = Conv<pads=[1,1]>(c, w, b)
    a = Transpose<perm=[2,0,1]>(d)"""


def scanned(body: str, *, attrs: str = "", before: str = "a = Identity(x)") -> onnx.ModelProto:
    """A Scan over the five entries of every frame [5, 4] of `x`."""
    return parse(
        f"""agraph (float[T,5,4] x) => (float[U,4] f, float[U,5,4] y) {{
        {before}
        {FIRST}
        f, y = Scan<num_scan_inputs=1, scan_input_axes=[1], scan_output_axes=[1]{attrs}, body = inner (float[Q,4] s, float[Q,4] u) => (float[Q,4] s2, float[Q,4] v) {{
            {body} }}>(s0, a) }}""",
        **K,
        w=rand(4, 4, 3),
        b=rand(4),
    )


LEAKY = "p = Mul(s, decay)\n m = MatMul(p, mix)\n s2 = Add(m, u)\n v = Tanh(s2)"


@pytest.mark.parametrize("attrs", ["", ", scan_input_directions=[1]", ", scan_output_directions=[1]"])
def test_scan(attrs: str) -> None:
    pulsed = check(scanned(LEAKY, attrs=attrs), axes={"x": 0}, delays={"f": 0, "y": 0}, **QUICK)
    assert not pulsed.spec["states"]


def test_scan_of_a_delayed_stream() -> None:
    check(scanned(LEAKY, before=DELAYED), axes={"x": 0}, delays={"f": 1, "y": 1}, **QUICK)


@pytest.mark.parametrize(
    "body, reason",
    [
        ("g = ReduceMean<axes=[0], keepdims=1>(u)\n s2 = Add(s, u)\n v = Sub(s2, g)", "inside its body"),
        ("g = CumSum(u, along)\n s2 = Add(s, u)\n v = Add(s2, g)", "does not keep the frames of the stream apart"),
        ("s2 = Add(s, u)\n v = Identity(decay)", "is the same for all frames"),
    ],
)
def test_scan_whose_body_mixes_frames(body: str, reason: str) -> None:
    model = scanned(body)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.int64(0), "along"))
    refused(model, reason, axes={"x": 0}, op_type="Scan")


def test_scan_that_begins_with_one_frame_for_all() -> None:
    model = scanned(LEAKY)
    next(n for n in model.graph.node if n.op_type == "Scan").input[0] = "start"
    refused(model, "does not begin as it goes on", axes={"x": 0})


def looped(body: str, rounds: int = 5, before: str = "a = Identity(x)") -> onnx.ModelProto:
    """A Loop over the five entries of every frame of `x`, which its body reads from outside."""
    return parse(
        f"""agraph (float[T,5,4] x) => (float[U,4] f, float[5,U,4] y) {{
        {before}
        {FIRST}
        f, y = Loop<body = inner (int64 i, bool c, float[Q,4] s) => (bool c2, float[Q,4] s2, float[Q,4] v) {{
            c2 = Identity(c)
            u = Gather<axis=1>(a, i)
            {body} }}>(rounds, , s0) }}""",
        **K,
        rounds=np.int64(rounds),
        w=rand(4, 4, 3),
        b=rand(4),
    )


@pytest.mark.parametrize("before, delay", [("a = Identity(x)", 0), (DELAYED, 1)])
def test_loop(before: str, delay: int) -> None:
    check(looped(LEAKY, before=before), axes={"x": 0}, delays={"f": delay, "y": delay}, **QUICK)


def test_loop_of_a_fixed_number_of_rounds_that_mixes_frames() -> None:
    refused(
        looped("g = ReduceMax<axes=[0], keepdims=1>(a)\n s2 = Add(s, u)\n k = Gather<axis=1>(g, i)\n v = Add(s2, k)"),
        "it runs 5 times, whatever the length of the stream, and inside its body",
        axes={"x": 0},
        op_type="Loop",
    )


ATTENTION = '<ir_version: 10, opset_import: ["": 23, "com.microsoft": 1]>\n'


@pytest.mark.parametrize(
    "text, more",
    [
        ("y = Attention<q_num_heads=2, kv_num_heads=2>(a, a, x)", {}),
        ("y = Attention<q_num_heads=2, kv_num_heads=2, is_causal=1>(a, x, a)", {}),
        ("y = Attention<q_num_heads=2, kv_num_heads=2>(a, a, a, mask)", {"mask": rand(5, 5)}),
        ("y = com.microsoft.MultiHeadAttention<num_heads=2>(a, a, x)", {}),
        ("y = com.microsoft.MultiHeadAttention<num_heads=2>(a, a, a, bias)", {"bias": rand(12)}),
    ],
)
def test_attention(text: str, more: dict[str, np.ndarray]) -> None:
    model = parse(
        f"{ATTENTION}agraph (float[T,5,4] x) => (float[U,5,4] y) {{ {DELAYED}\n {text} }}",
        **more,
        w=rand(4, 4, 3),
        b=rand(4),
    )
    pulsed = check(model, axes={"x": 0}, delays={"y": 1}, **QUICK)
    assert {s["role"] for s in pulsed.spec["states"]} <= {"history", "clock", "seen"}


def test_attention_to_keys_of_a_fixed_number_of_frames() -> None:
    refused(
        parse(
            f"{ATTENTION}agraph (float[T,5,4] x) => (float[U,5,4] y) {{ y = Attention<q_num_heads=2, "
            "kv_num_heads=2>(x, k, k) }",
            k=rand(1, 5, 4),
        ),
        "only some of query, key and value stream",
        axes={"x": 0},
    )


def test_rotary_embedding() -> None:
    """Positions of every frame's own sequence, or (contrib) one to begin with for all."""
    tables = dict(cos=np.cos(rand(40, 2)), sin=np.sin(rand(40, 2)))
    check(
        parse(
            f"{ATTENTION}agraph (float[T,5,8] x, int64[T,5] p) => (float[U,5,8] y) {{ y = "
            "RotaryEmbedding<num_heads=2>(x, cos, sin, p) }",
            **tables,
        ),
        axes={"x": 0, "p": 0},
        delays={"y": 0},
        inputs={"p": lambda rng, shape: rng.integers(0, 40, shape)},
        **QUICK,
    )
    check(
        parse(
            f"{ATTENTION}agraph (float[T,5,8] x) => (float[U,5,8] y) {{ y = "
            "com.microsoft.RotaryEmbedding<num_heads=2>(x, from, cos, sin) }",
            **tables,
            **{"from": np.int64([3])},
        ),
        axes={"x": 0},
        delays={"y": 0},
        **QUICK,
    )
    refused(
        parse(
            f"{ATTENTION}agraph (float[T,5,8] x) => (float[U,5,8] y) {{ y = RotaryEmbedding<num_heads=2>(x, cos, "
            "sin, p) }",
            **tables,
            p=np.arange(5)[None],
        ),
        "every row of it has positions of its own",
        axes={"x": 0},
    )


def test_a_scan_across_behind_a_border() -> None:
    """The border of what it reads goes through the body too."""
    model = scanned(LEAKY, before=DELAYED.replace("a = Transpose", "e = Transpose") + "\n a = Pad(e, pads, half)")
    for name, value in {"pads": np.int64([2, 0, 0, 1, 0, 0]), "half": np.float32(0.5)}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    check(model, axes={"x": 0}, **QUICK)
    assert pulsify(model, pulse=3, axes={"x": 0}).spec["outputs"][0]["delay"] <= 1


@pytest.mark.parametrize(
    "attention",
    [
        "y = Attention(q, q, q, , , , n)",
        "y = Attention<is_causal=1>(q, q, q, , , , n)",
        "y = Attention(d, d, d, , , , n)",
    ],
)
def test_numbers_of_keys_are_valid_past_the_end_too(attention: str) -> None:
    """What the caller leaves past the end would be more keys than there are, of which onnxruntime stops."""
    model = parse(
        f"""<ir_version: 10, opset_import: ["": 24]>
        agraph (float[T,2,3,4] q, int64[T] n) => (float[U,2,3,4] y) {{
            f = Reshape(q, flat)
            t = Transpose<perm=[1,0]>(f)
            u = Unsqueeze(t, first)
            c = Conv<pads=[1,1], group=24>(u, w, b)
            s = Squeeze(c, first)
            r = Transpose<perm=[1,0]>(s)
            d = Reshape(r, deep)
            {attention} }}""",
        flat=np.array([-1, 24]),
        first=np.array([0]),
        w=rand(24, 1, 3),
        b=rand(24),
        deep=np.array([-1, 2, 3, 4]),
    )
    counts = {"n": lambda rng, shape: rng.integers(1, 4, shape)}
    check(model, axes={"q": 0, "n": 0}, inputs=counts, **QUICK)
