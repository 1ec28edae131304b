"""Operators that count or mask row by row, or keep rows apart in ways of their own."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from test_rows import ONE, SAME, delayed

from pulsify_onnx.api import pulsify
from testing.oracle import parse, rand
from testing.rowing import batched, check_rows

GATES = {"w": rand(4, 4, 3), "b": rand(4)}


def scan(start: str, opset: int = 17, batch: str = "B") -> onnx.ModelProto:
    """A recurrence with a state [batch, 4] on a delayed stream, frames along axis 2."""
    inner = batch if batch.isdecimal() else "Q"
    return parse(
        f"""<ir_version: 8, opset_import: ["": {opset}]>
        agraph (float[{batch},4,T] x) => (float[{batch},4,U] y, float[{batch},4] last) {{
        {SAME}
        {start}
        last, ys = Scan<num_scan_inputs=1, scan_input_axes=[2], scan_output_axes=[1],
            body = inner (float[{inner},4] s, float[{inner},4] u) => (float[{inner},4] s2, float[{inner},4] v) {{
            p = Mul(s, decay)
            m = MatMul(p, mix)
            s2 = Add(m, u)
            v = Tanh(s2) }}>(first, a)
        z = Transpose<perm=[0,2,1]>(ys)
        y = Conv<pads=[1,1]>(z, w, b) }}""",
        **GATES,
        decay=rand(4, seed=3),
        mix=rand(4, 4, seed=4) / 4,
        h=rand(1, 4, seed=5),
        zero=ONE * 0,
        one=ONE,
        four=ONE * 4,
    )


ROWS = "n = Shape(x)\n rows = Slice(n, zero, one)\n shape = Concat<axis=0>(rows, four)"


@pytest.mark.parametrize("start", [f"{ROWS}\n first = Expand(h, shape)", f"{ROWS}\n first = ConstantOfShape(shape)"])
def test_scans(start: str):
    check_rows(scan(start))


def test_scans_of_a_model_for_one_row():
    check_rows(scan("first = Identity(h)", batch="1"), batch="dynamic", pulses=(1, 3))
    check_rows(scan("first = Identity(h)", batch="1"), batch=7, pulses=(8,))


def test_a_scan_that_mixes_rows_is_named():
    model = scan(f"{ROWS}\n first = ConstantOfShape(shape)")
    body = next(n for n in model.graph.node if n.op_type == "Scan")
    graph = next(a.g for a in body.attribute if a.name == "body")
    graph.node[-1].op_type = "ReduceMean"
    graph.node[-1].attribute.extend(
        [onnx.helper.make_attribute("axes", [0]), onnx.helper.make_attribute("keepdims", 1)]
    )
    graph.node.append(onnx.helper.make_node("Add", ["v", "u"], ["v2"]))
    graph.output[1].name = "v2"
    spec = pulsify(model, pulse=4, axes={"x": 2}).spec
    assert spec["independent_rows"] is False and "last" in spec["shared_by"]


def test_loops_over_frames():
    model = parse(
        """agraph (float[B,T,4] x) => (float[B,T,4] y, float[B,4] last) {
        xt = Transpose<perm=[0,2,1]>(x)
        at = Conv<pads=[1,1]>(xt, w, b)
        a = Transpose<perm=[2,0,1]>(at)
        n = Shape(a)
        frames = Gather(n, none)
        rows = Slice(n, one, two)
        shape = Concat<axis=0>(rows, four)
        first = ConstantOfShape(shape)
        last, ys = Loop<body = inner (int64 i, bool c, float[Q,4] s) => (bool c2, float[Q,4] s2, float[Q,4] v) {
            c2 = Identity(c)
            u = Gather<axis=0>(a, i)
            p = Mul(s, decay)
            s2 = Add(p, u)
            v = Identity(s2) }>(frames, , first)
        y = Transpose<perm=[1,0,2]>(ys) }""",
        **GATES,
        none=np.int64(0),
        one=ONE,
        two=ONE * 2,
        four=ONE * 4,
        decay=rand(4, seed=3),
    )
    check_rows(model, axes={"x": 1}, pulses=(1, 3))


def test_einsum_with_an_ellipsis():
    check_rows(
        delayed(
            't = Transpose<perm=[0,2,1]>(a)\n m = Einsum<equation="...i,ij->...j">(t, mix)\n z = '
            "Transpose<perm=[0,2,1]>(m)\n y = Conv<pads=[1,1]>(z, w, b)",
            mix=rand(4, 4, seed=3),
        ),
        pulses=(3,),
    )
    mixed = delayed('y = Einsum<equation="i...,i...->...">(a, a)')
    assert pulsify(mixed, pulse=4).spec["shared_by"] == ["y"]


@pytest.mark.parametrize("opset", [11, 17])
def test_linear_resize_of_three_dimensions(opset: int):
    text = f"""<ir_version: 8, opset_import: ["": {opset}]>
        agraph (float[1,4,T] x) => (float[1,4,U] y) {{ {SAME} r = Resize<mode="linear">(a, none, scales)\n y = Conv<pads=[1,1]>(r, w, b) }}"""
    check_rows(
        batched(parse(text, **GATES, none=np.zeros(0, np.float32), scales=np.asarray([1, 1, 2], np.float32))),
        pulses=(1, 8),
    )


RESAMPLED = {
    "rows and frames": ("B,T", 1, "t = Identity(x)", (1, 2)),
    "frames and rows": ("B,T", 1, "t = Transpose<perm=[1,0]>(x)", (2, 1)),
    "frames, rows, features": ("B,4,T", 2, "t = Transpose<perm=[2,0,1]>(x)", (2, 1, 1)),
    "features too": ("B,4,T", 2, "t = Identity(x)", (1, 2, 2)),
    "rows last": ("B,2,3,T", 3, "t = Transpose<perm=[1,2,3,0]>(x)", (1, 1, 2, 1)),
    "rows before the frames": ("B,2,3,T", 3, "t = Transpose<perm=[1,2,0,3]>(x)", (1, 1, 1, 2)),
    "channels last": ("B,2,3,T", 3, "t = Transpose<perm=[0,2,3,1]>(x)", (1, 2, 2, 1)),
    "five dimensions": ("B,2,1,3,T", 4, "t = Identity(x)", (1, 1, 1, 2, 2)),
    "rows inside five": ("B,2,1,3,T", 4, "t = Transpose<perm=[1,2,3,0,4]>(x)", (1, 1, 2, 1, 2)),
}


@pytest.mark.parametrize(
    "name, mode",
    [
        (name, mode)
        for name in RESAMPLED
        for mode in ("linear", "cubic")
        if mode == "linear" or len(RESAMPLED[name][3]) in (2, 4)
    ],
)
def test_rows_do_not_weigh_on_each_other(name: str, mode: str):
    """Nothing of a row is read for another one, were it by a weight of 0: beyond the end of a row there may be
    anything.
    """
    dims, axis, before, scales = RESAMPLED[name]
    model = parse(
        f"agraph (float[{dims}] x) => (float[{dims.replace('T', 'U')}] y) {{ {before}\n y = "
        f'Resize<mode="{mode}">(t, none, scales) }}',
        none=np.zeros(0, np.float32),
        scales=np.asarray(scales, np.float32),
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    check_rows(model, axes={"x": axis}, pulses=(1, 3))


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("before", ["", "Relu", "Cast<to=1>"])
def test_a_plane_that_is_turned_after_its_resize(mode: str, before: str):
    """Onnxruntime moves no Transpose of a border's frames to behind a Resize that can't do without."""
    model = parse(
        f"""agraph (float[B,3,T] x) => (float[B,U,6] y) {{
        u = Unsqueeze(x, one)
        {f"v = {before}(u)" if before else "v = Identity(u)"}
        r = Resize<mode="{mode}", coordinate_transformation_mode="asymmetric">(v, none, scales)
        t = Transpose<perm=[0,3,1,2]>(r)
        y = Reshape(t, flat) }}""",
        one=ONE,
        none=np.zeros(0, np.float32),
        scales=np.asarray([1, 1, 2, 2], np.float32),
        flat=np.asarray([0, 0, 6]),
    )
    check_rows(model, axes={"x": 2}, pulses=(1, 4))


def test_rows_and_frames_to_a_computed_size():
    text = """s = Shape(t)\n n = Slice(s, zero, one)\n m = Slice(s, one, two)\n double = Mul(m, two)\n to = Concat<axis=0>(n, double)
        y = Resize<mode="linear">(t, none, none, to)"""
    for dims, before, swapped in (
        ("B,T", "t = Identity(x)", text),
        (
            "B,T",
            "t = Transpose<perm=[1,0]>(x)",
            text.replace("(n, double)", "(double, n)")
            .replace("Slice(s, zero, one)", "Slice(s, a, c)")
            .replace("Slice(s, one, two)", "Slice(s, zero, one)")
            .replace("a, c", "one, two"),
        ),
    ):
        model = parse(
            f"agraph (float[{dims}] x) => (float[B,U] y) {{ {before}\n {swapped} }}",
            none=np.zeros(0, np.float32),
            zero=ONE * 0,
            one=ONE,
            two=ONE * 2,
        )
        model.graph.output[0].type.tensor_type.ClearField("shape")
        check_rows(model, axes={"x": 1}, pulses=(1, 3))


def test_old_resampling_of_rows_and_frames():
    for opset, text in (
        (8, 'y = Upsample<mode="linear", scales=[1.0, 2.0]>(x)'),
        (10, 'y = Resize<mode="linear">(x, scales)'),
    ):
        model = parse(
            f'<ir_version: 5, opset_import: ["": {opset}]>\nagraph (float[B,T] x) => (float[B,U] y) {{ {text} }}',
            scales=np.asarray([1, 2], np.float32),
        )
        check_rows(model, axes={"x": 1}, pulses=(1, 3), ends=(False, True) if opset > 8 else (False,))


@pytest.mark.parametrize(
    "body",
    [
        'p = Pad<mode="reflect">(a, pads)\n y = Conv(p, w, b)',
        'p = Pad<mode="edge">(a, pads)\n y = Conv(p, w, b)',
        "t = Transpose<perm=[2,0,1]>(a)\n y = GRU<hidden_size=5>(t, wi, wr, wb)",
    ],
)
def test_frames_looked_up_before_there_was_an_operator_for_it(body: str):
    text = f'<ir_version: 8, opset_import: ["": 11]>\nagraph (float[1,4,T] x) => (float[1,4,U] y) {{ {SAME}{body} }}'
    check_rows(
        batched(
            parse(
                text, **GATES, pads=np.asarray([0, 0, 2, 0, 0, 2]), wi=rand(1, 15, 4), wr=rand(1, 15, 5), wb=rand(1, 30)
            )
        ),
        shortest=4,
        pulses=(1, 3),
    )


POSITIONS = "n = Shape(x)\n frames = Gather(n, one)\n r = Range(zero, frames, one)\n i = Unsqueeze(r, first)"


def test_positions_widened_to_a_known_size():
    check_rows(
        delayed(
            """
        n = Shape(x)
        frames = Gather(n, two)
        r = Range(zero, frames, one)
        i = Unsqueeze(r, last)
        f = Cast<to=1>(i)
        wide = Expand(f, four)
        g = Sin(wide)
        t = Transpose<perm=[1,0]>(g)
        y = Add(a, t)""",
            two=np.int64(2),
            zero=np.int64(0),
            one=np.int64(1),
            last=np.asarray([1]),
            four=np.asarray([1, 4]),
        ),
        pulses=(3,),
    )


def test_rotary_positions_of_every_row():
    model = batched(
        parse(
            f"""<ir_version: 10, opset_import: ["": 23]>
        agraph (float[1,T,8] x) => (float[1,T,8] y) {{
        {POSITIONS}
        xt = Transpose<perm=[0,2,1]>(x)
        at = Conv<pads=[1,1]>(xt, w, b)
        a = Transpose<perm=[0,2,1]>(at)
        s = Slice(n, first, second)
        wide = Concat<axis=0>(s, minus)
        ids = Expand(i, wide)
        y = RotaryEmbedding<num_heads=2>(a, cos, sin, ids) }}""",
            w=rand(8, 8, 3),
            b=rand(8),
            one=np.int64(1),
            zero=np.int64(0),
            first=np.asarray([0]),
            second=np.asarray([1]),
            minus=np.asarray([1]),
            cos=np.cos(rand(600, 2)),
            sin=np.sin(rand(600, 2)),
        )
    )
    check_rows(model, axes={"x": 1}, pulses=(1, 3))


def test_multi_head_attention_behind_a_bias():
    model = parse(
        f"""<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>
        agraph (float[B,T,8] x) => (float[B,T,8] y) {{
        {POSITIONS}
        j = Unsqueeze(r, last)
        d = Sub(j, i)
        late = Less(d, zero)
        old = Greater(d, five)
        closed = Or(late, old)
        bias = Where(closed, low, none)
        b4 = Unsqueeze(bias, both)
        q = MatMul(x, w)
        y = com.microsoft.MultiHeadAttention<num_heads=2>(q, x, x, , , b4) }}""",
        w=rand(8, 8),
        one=np.int64(1),
        zero=np.int64(0),
        five=np.int64(5),
        first=np.asarray([0]),
        last=np.asarray([1]),
        both=np.asarray([0, 1]),
        low=np.float32(-10000),
        none=np.float32(0),
    )
    check_rows(model, axes={"x": 1}, pulses=(1, 3))


CELLS = {
    "LSTM": {"wi": rand(1, 20, 4), "wr": rand(1, 20, 5, seed=1), "wb": rand(1, 40, seed=2)},
    "GRU": {"wi": rand(1, 15, 4), "wr": rand(1, 15, 5), "wb": rand(1, 30)},
    "RNN": {"wi": rand(1, 5, 4), "wr": rand(1, 5, 5), "wb": rand(1, 10)},
}


@pytest.mark.parametrize("op, attrs", [("LSTM", ""), ("LSTM", ", clip=0.4"), ("GRU", ""), ("RNN", "")])
@pytest.mark.parametrize("start", [False, True])
def test_recurrences_whose_rows_begin_and_end_apart(op: str, attrs: str, start: bool):
    """Final states of real frames only, row by row, from zeros or (in the graph) from values of their own."""
    inits = (
        "n = Shape(x)\n rows = Slice(n, zero, one)\n shape = Concat<axis=0>(one, rows, five)\n h0 = "
        f"{'Expand(h, shape)' if start else 'ConstantOfShape(shape)'}\n"
    )
    given = ", , h0, h0" if op == "LSTM" else ", , h0"
    outs = "r, last, cell" if op == "LSTM" else "r, last"
    check_rows(
        parse(
            f"""agraph (float[B,4,T] x) => (float[B,5,U] y, float[1,B,5] last{", float[1,B,5] cell" if op == "LSTM" else ""}) {{
        {SAME}{inits}
        t = Transpose<perm=[2,0,1]>(a)
        {outs} = {op}<hidden_size=5{attrs}>(t, wi, wr, wb{given})
        s = Squeeze(r, one)
        y = Transpose<perm=[1,2,0]>(s) }}""",
            **GATES,
            **CELLS[op],
            h=rand(1, 1, 5, seed=5),
            zero=ONE * 0,
            one=ONE,
            five=ONE * 5,
        ),
        pulses=(1, 3, 8),
    )
