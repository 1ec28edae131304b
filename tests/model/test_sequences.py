from __future__ import annotations

import numpy as np
import onnx
import pytest

from testing.oracle import check, parse, rand, refused


def collecting(join: str, out: str, value: str = "o = Tanh(h2)", shape: str = "float[4] o") -> onnx.ModelProto:
    """A loop over frames as exporters of scripted modules write it."""
    model = parse(
        f"""agraph (float[1,T,4] x) => ({out} y) {{
        t = Transpose<perm=[0,2,1]>(x)
        d = Conv<pads=[1,1]>(t, w, b)
        c = Transpose<perm=[0,2,1]>(d)
        s = Shape(x)
        n = Gather(s, one)
        empty = SequenceEmpty<dtype=1>()
        f, all = Loop<body = body (int64 i, bool go, float[4] h, seq(float[4]) q) => (bool again, float[4] h2, seq(float[4]) q2) {{
            again = Identity(go)
            u = Gather<axis=1>(c, i)
            v = Squeeze(u, zero)
            p = Mul(h, decay)
            h2 = Add(p, v)
            {value}
            q2 = SequenceInsert(q, o) }}>(n, yes, h0, empty)
        y = ConcatFromSequence{join}(all) }}""",
        w=rand(4, 4, 3),
        b=rand(4),
        one=np.int64(1),
        zero=np.int64([0]),
        yes=np.array(True),
        h0=rand(4, seed=2),
        decay=np.float32([0.5, 0.9, 0.7, 0.2]),
        column=np.int64([1]),
    )
    loop = next(n for n in model.graph.node if n.op_type == "Loop")
    body = next(a for a in loop.attribute if a.name == "body").g
    dims = shape.partition("[")[2]
    body.value_info.append(onnx.helper.make_tensor_value_info("o", 1, [int(d) for d in dims.split("]")[0].split(",")]))
    return model


@pytest.mark.parametrize(
    "join, out",
    [
        ("<axis=0, new_axis=1>", "float[U,4]"),
        ("<axis=1, new_axis=1>", "float[4,U]"),
        ("<axis=-1, new_axis=1>", "float[4,U]"),
    ],
)
def test_stacked_frames(join, out):
    check(collecting(join, out), delays={"y": 1}, pulses=(1, 3, 32))


def test_joined_frames():
    check(
        collecting("<axis=1>", "float[4,U]", "g = Tanh(h2)\n o = Unsqueeze(g, column)", "float[4,1] o"),
        delays={"y": 1},
        pulses=(1, 3, 32),
    )


def test_refuses_frames_that_are_joined_end_to_end():
    refused(collecting("<axis=0>", "float[U]"), "sequence", axes={"x": 1})


def test_rank_told_by_the_type_of_the_sequence():
    model = collecting("<axis=1, new_axis=1>", "float[4,U]")
    loop = next(n for n in model.graph.node if n.op_type == "Loop")
    del next(a for a in loop.attribute if a.name == "body").g.value_info[:]
    check(model, delays={"y": 1}, pulses=(1, 3))
