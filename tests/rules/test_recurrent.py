from __future__ import annotations

import numpy as np
import onnx
import pytest

from testing.oracle import PULSES, check, parse, rand, refused

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def layer(
    op: str,
    *,
    attrs: str = "",
    before: str = "c = Conv<pads=[1,1]>(x, w, b)",
    inits: str = "",
    outs: str = "y",
    after: str = "",
    directions: int = 1,
    extra: str = "",
    **more: np.ndarray,
) -> onnx.ModelProto:
    """A recurrent layer of 5 over [1, 4, T]; `outs` are the names of Y, Y_h, Y_c."""
    gates = GATES[op]
    declared = {"y": "float[U,1,1,5] y", "h": "float[1,1,5] h", "k": "float[1,1,5] k"}
    results = (
        ", ".join(declared[o] for o in outs.replace("q", "").split(", ") if o in declared)
        if not after
        else "float[U,1,1,5] y"
    )
    return parse(
        f"""agraph (float[1,4,T] x{extra}) => ({results}) {{
        {before}
        t = Transpose<perm=[2,0,1]>(c)
        {outs} = {op}<hidden_size=5{attrs}>(t, rw, rr, rb{inits})
        {after} }}""",
        w=rand(4, 4, 3),
        b=rand(4),
        rw=rand(directions, 5 * gates, 4, seed=1),
        rr=rand(directions, 5 * gates, 5, seed=2),
        rb=rand(directions, 10 * gates, seed=3),
        **more,
    )


def starts(op: str, first: int = 1) -> dict[str, np.ndarray]:
    found = {"h0": rand(first, 1, 5, seed=7)}
    return {**found, "c0": rand(first, 1, 5, seed=8)} if op == "LSTM" else found


@pytest.mark.parametrize("op", GATES)
def test_frames_and_states_behind_a_delay(op):
    check(layer(op, outs="y, h" if op != "LSTM" else "y, h, k"), delays={"y": 1})


@pytest.mark.parametrize("op", GATES)
def test_initial_state_behind_a_delay(op):
    inits = ", , h0, c0" if op == "LSTM" else ", , h0"
    check(layer(op, inits=inits, outs="y, h", **starts(op)), delays={"y": 1})


@pytest.mark.parametrize("op", GATES)
def test_only_the_last_state(op):
    check(layer(op, before="c = Identity(x)", outs=", h"), pulses=(1, 3, 32))
    check(layer(op, outs=", h"), pulses=(1, 3, 32))


def test_only_the_cell_state_after_a_crop():
    model = layer(
        "LSTM", before="c = Slice(x, k0, k2, ax)", outs="y, , k", k0=np.int64([0]), k2=np.int64([-2]), ax=np.int64([2])
    )
    check(model, delays={"y": 0}, pulses=(1, 2, 3))


def test_the_last_state_after_a_crop_is_exact_every_pulse():
    model = layer(
        "GRU", before="c = Slice(x, k0, k2, ax)", outs=", h", k0=np.int64([0]), k2=np.int64([-2]), ax=np.int64([2])
    )
    pulsed = check(model, pulses=(1, 2, 3))
    assert pulsed.spec["outputs"][0]["exact_every_pulse"]


def test_the_last_state_after_frames_padded_behind_a_crop_is_exact_after_the_flush():
    """All its frames have come when the crop lets them through, but what pads the last of them has not."""
    model = layer(
        "GRU",
        before="s = Slice(x, k0, k3, ax)\n c = Conv<pads=[1,1]>(s, w, b)",
        outs=", h",
        k0=np.int64([0]),
        k3=np.int64([-3]),
        ax=np.int64([2]),
    )
    pulsed = check(model, pulses=(1, 2, 3))
    assert not pulsed.spec["outputs"][0]["exact_every_pulse"]


def test_no_state_but_h_without_a_delay():
    check(layer("GRU", before="c = Identity(x)"), delays={"y": 0}, state_bytes=20)


def test_initial_state_from_a_static_input():
    check(layer("GRU", inits=", , h0", extra=", float[1,1,5] h0", outs="y, h"), axes={"x": 2}, delays={"y": 1})


@pytest.mark.parametrize(
    "op, attrs",
    [
        ("GRU", ", linear_before_reset=1"),
        ("GRU", ", clip=0.3"),
        ("LSTM", ", input_forget=1"),
        ("LSTM", ", clip=0.4"),
        ("RNN", ', activations=["Relu"]'),
        ("LSTM", ', activations=["Sigmoid","Tanh","Relu"]'),
    ],
)
def test_attributes(op, attrs):
    check(layer(op, attrs=attrs), delays={"y": 1}, pulses=(1, 3))


def test_peepholes():
    check(layer("LSTM", inits=", , h0, c0, p", p=rand(1, 15, seed=5), **starts("LSTM")), delays={"y": 1}, pulses=(1, 3))


def test_behind_padding():
    model = layer("GRU", before="c = Pad(x, pads)", outs="y, h", pads=np.int64([0, 0, 2, 0, 0, 3]))
    check(model)


def test_two_layers_and_a_network_after():
    check(
        layer(
            "LSTM",
            outs="r",
            after="""s = Squeeze(r, one)
        u, h2 = GRU<hidden_size=5>(s, gw, gr)
        v = Squeeze(u, one)
        n = Transpose<perm=[1,2,0]>(v)
        m = Conv<pads=[1,1]>(n, cw)
        f = Transpose<perm=[2,0,1]>(m)
        y = Unsqueeze(f, one)""",
            one=np.int64([1]),
            gw=rand(1, 15, 5),
            gr=rand(1, 15, 5, seed=4),
            cw=rand(5, 5, 3),
        ),
        delays={"y": 2},
    )


def test_behind_a_strided_conv():
    model = layer("GRU", before="c = Conv<pads=[1,1], strides=[2]>(x, w, b)", outs="y, h")
    check(model, pulses=(2, 4, 6))


def batched(layout: int, inits: str = "") -> onnx.ModelProto:
    """Batch second, or (through transposes) first: the twins of one network."""
    before, after = (
        ("t = Transpose<perm=[1,0,2]>(x)", "y = Transpose<perm=[2,0,1,3]>(r)\n h = Transpose<perm=[1,0,2]>(g)")
        if not layout
        else ("t = Identity(x)", "y = Identity(r)\n h = Identity(g)")
    )
    return parse(
        f"""agraph (float[2,T,4] x) => (float[2,U,1,5] y, float[2,1,5] h) {{
        {before}
        r, g = GRU<hidden_size=5, layout={layout}>(t, rw, rr, rb{inits})
        {after} }}""",
        rw=rand(1, 15, 4),
        rr=rand(1, 15, 5),
        rb=rand(1, 30),
        h0=rand(*((2, 1, 5) if layout else (1, 2, 5)), seed=9)[:],
    )


def test_layout_with_the_batch_first(monkeypatch):
    """Onnxruntime can't run the batch model, hence the twin; its pulsed form is run on the same weights."""
    from testing import oracle

    second, first = batched(0, ", , h0"), batched(1, ", , h0")
    h0 = rand(1, 2, 5, seed=9)
    for model, value in ((second, h0), (first, h0.transpose(1, 0, 2))):
        kept = next(i for i in model.graph.initializer if i.name == "h0")
        kept.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(value), "h0"))
    real = oracle.session
    monkeypatch.setattr(
        oracle,
        "session",
        lambda model, **how: real(second.SerializeToString() if model == first.SerializeToString() else model, **how),
    )
    check(first, axes={"x": 1}, delays={"y": 0})


def test_symbolic_batch():
    model = parse(
        """agraph (float[T,B,4] x) => (float[U,1,B,5] y, float[1,B,5] h) {
        s = Shape(x)
        n = Gather(s, one)
        k = Concat<axis=0>(one, n, five)
        h0 = ConstantOfShape(k)
        y, h = GRU<hidden_size=5>(x, rw, rr, , , h0) }""",
        one=np.int64([1]),
        five=np.int64([5]),
        rw=rand(1, 15, 4),
        rr=rand(1, 15, 5),
    )
    pulsed = check(model, axes={"x": 0}, delays={"y": 0}, pulses=(1, 3), both=False)
    assert pulsed.spec["states"][0]["shape"] == ["B", 1, 5]


@pytest.mark.parametrize(
    "op, direction", [("GRU", "forward"), ("GRU", "reverse"), ("LSTM", "bidirectional"), ("RNN", "bidirectional")]
)
def test_time_as_the_batch(op, direction):
    gates, n = GATES[op], 2 if direction == "bidirectional" else 1
    check(
        parse(
            f"""agraph (float[1,4,T,6] x) => (float[6,{n},U,5] y, float[{n},U,5] h) {{
        d = Conv<pads=[1,0,1,0]>(x, w, b)
        s = Squeeze(d, zero)
        t = Transpose<perm=[2,1,0]>(s)
        y, h = {op}<hidden_size=5, direction="{direction}">(t, rw, rr, rb) }}""",
            w=rand(4, 4, 3, 1),
            b=rand(4),
            zero=np.int64([0]),
            rw=rand(n, 5 * gates, 4),
            rr=rand(n, 5 * gates, 5),
            rb=rand(n, 10 * gates),
        ),
        axes={"x": 2},
        delays={"y": 1, "h": 1},
        pulses=PULSES[:3],
    )


def test_time_as_the_batch_with_an_initial_state_of_its_length():
    check(
        parse(
            """agraph (float[6,T,4] x) => (float[6,1,U,5] y) {
        s = Shape(x)
        n = Gather(s, one)
        k = Concat<axis=0>(one, n, five)
        h0 = ConstantOfShape<value = float[1] {0.4}>(k)
        y = GRU<hidden_size=5>(x, rw, rr, , , h0) }""",
            one=np.int64([1]),
            five=np.int64([5]),
            rw=rand(1, 15, 4),
            rr=rand(1, 15, 5),
        ),
        axes={"x": 1},
        delays={"y": 0},
        pulses=(1, 3),
    )


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("direction", ["reverse", "bidirectional"])
def test_refuses_other_directions(op, direction):
    n = 2 if direction == "bidirectional" else 1
    refused(
        layer(op, attrs=f', direction="{direction}"', directions=n),
        "it runs from the last frame to the first",
        axes={"x": 2},
        op_type=op,
    )


def test_refuses_sequence_lens():
    refused(layer("GRU", inits=", lens", lens=np.int32([9])), "sequence_lens ends every row", axes={"x": 2})


def test_sequence_lens_of_the_whole_length():
    model = layer(
        "GRU",
        before="s = Shape(x)\n n = Gather(s, two)\n i = Cast<to=6>(n)\n lens = Reshape(i, one)\n c = "
        "Conv<pads=[1,1]>(x, w, b)",
        inits=", lens",
        outs="y, h",
        two=np.int64(2),
        one=np.int64([1]),
    )
    check(model, delays={"y": 1}, pulses=(1, 3))


def test_refuses_a_stream_along_the_features():
    model = parse(
        "agraph (float[3,1,T] x) => (float[3,1,1,5] y) { y = GRU<hidden_size=5>(x, rw, rr) }",
        rw=rand(1, 15, 4),
        rr=rand(1, 15, 5),
    )
    refused(model, "the stream runs along its features", axes={"x": 2})


def test_refuses_initial_states_of_a_fixed_number_of_frames():
    model = parse(
        "agraph (float[6,T,4] x) => (float[6,1,U,5] y) { y = GRU<hidden_size=5>(x, rw, rr, , , h0) }",
        rw=rand(1, 15, 4),
        rr=rand(1, 15, 5),
        h0=rand(1, 9, 5),
    )
    refused(model, "for a fixed number of frames", axes={"x": 1})


@pytest.mark.parametrize("op", GATES)
def test_several_rows(op):
    gates = GATES[op]
    inits = ", , h0, c0" if op == "LSTM" else ", , h0"
    more = {"h0": rand(1, 3, 5, seed=7), **({"c0": rand(1, 3, 5, seed=8)} if op == "LSTM" else {})}
    pulsed = check(
        parse(
            f"""agraph (float[3,4,T] x) => (float[U,1,3,5] y, float[1,3,5] h) {{
        c = Conv<pads=[1,1]>(x, w, b)
        t = Transpose<perm=[2,0,1]>(c)
        y, h = {op}<hidden_size=5>(t, rw, rr, rb{inits}) }}""",
            w=rand(4, 4, 3),
            b=rand(4),
            rw=rand(1, 5 * gates, 4, seed=1),
            rr=rand(1, 5 * gates, 5, seed=2),
            rb=rand(1, 10 * gates, seed=3),
            **more,
        ),
        axes={"x": 2},
        delays={"y": 1},
        pulses=(1, 2, 7),
    )
    assert all(s["shape"] == [3, 1, 5] for s in pulsed.spec["states"] if s["role"] == "recurrent")


def test_over_frame_numbers():
    check(
        parse(
            """agraph (float[T,1,1] x) => (float[U,1,1,5] y) {
        s = Shape(x)
        n = Gather(s, zero)
        i = Range(zero, n, one)
        f = Cast<to=1>(i)
        p = Unsqueeze(f, both)
        r = GRU<hidden_size=5>(p, rw, rr)
        u = Unsqueeze(x, last)
        y = Add(r, u) }""",
            zero=np.int64(0),
            one=np.int64(1),
            both=np.int64([1, 2]),
            last=np.int64([3]),
            rw=rand(1, 15, 1),
            rr=rand(1, 15, 5),
        ),
        axes={"x": 0},
        delays={"y": 0},
        pulses=(1, 3),
    )


def test_an_initial_state_of_another_shape_is_refused():
    for shape in ((4, 4, 3), (1, 1, 5), (1, 4)):
        refused(
            parse(
                "agraph (float[T,1,3] x) => (float[T,1,1,4] y) { y = GRU<hidden_size=4>(x, w, r, , , h0) }",
                w=rand(1, 12, 3),
                r=rand(1, 12, 4),
                h0=rand(*shape),
            ),
            "its initial state has shape",
        )


UNUSUAL = {
    "clip": ("LSTM", ", clip=0.4", ""),
    "cells": ("LSTM", ', activations=["HardSigmoid","Tanh","Softsign"]', ""),
    "signs": ("LSTM", ', activations=["Softsign","Tanh","Tanh"]', ", , h0, c0"),
    "peepholes": ("LSTM", "", ", , h0, c0, p"),
    "coupled": ("LSTM", ", input_forget=1", ", , h0, c0"),
    "usual": ("LSTM", "", ", , h0, c0"),
    "zeros": ("LSTM", "", ""),
    "gru": ("GRU", ", linear_before_reset=1, clip=0.3", ", , h0"),
    "rnn": ("RNN", ', activations=["Relu"]', ", , h0"),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_states_of_real_frames_only_whatever_the_gates(kind: str):
    """Behind a delay, with final states, and with a network after it that sees the frames before the first."""
    op, attrs, inits = UNUSUAL[kind]
    weights = {k: v for k, v in {**starts(op), "p": rand(1, 15, seed=5)}.items() if k in inits}
    outs, final = ("r, h, k", ", float[1,1,5] h, float[1,1,5] k") if op == "LSTM" else ("r, h", ", float[1,1,5] h")
    gates = GATES[op]
    model = parse(
        f"""agraph (float[1,4,T] x) => (float[1,5,U] y{final}) {{
        c = Conv<pads=[2,2]>(x, w, b)
        t = Transpose<perm=[2,0,1]>(c)
        {outs} = {op}<hidden_size=5{attrs}>(t, rw, rr, rb{inits})
        s = Squeeze(r, one)
        n = Transpose<perm=[1,2,0]>(s)
        y = Conv<pads=[1,1]>(n, v) }}""",
        w=rand(4, 4, 5),
        b=rand(4),
        rw=rand(1, 5 * gates, 4, seed=1),
        rr=rand(1, 5 * gates, 5, seed=2),
        rb=rand(1, 10 * gates, seed=3),
        one=np.int64([1]),
        v=rand(5, 5, 3),
        **weights,
    )
    check(model, delays={"y": 3}, pulses=(*PULSES, 64))
    check(model, length=2, pulses=(1, 3))


def test_weights_from_the_caller():
    """Nothing is known of them, so no gate is known to saturate."""
    check(
        parse(
            """agraph (float[1,4,T] x, float[1,20,4] rw, float[1,20,5] rr) => (float[U,1,1,5] y, float[1,1,5] h, float[1,1,5] k) {
        c = Conv<pads=[1,1]>(x, w, b)
        t = Transpose<perm=[2,0,1]>(c)
        y, h, k = LSTM<hidden_size=5>(t, rw, rr) }""",
            w=rand(4, 4, 3),
            b=rand(4),
        ),
        axes={"x": 2},
        delays={"y": 1},
        pulses=(1, 3),
    )


def test_weights_whose_sums_no_gate_outweighs():
    model = layer("LSTM", outs="y, h, k", inits=", , h0, c0", **starts("LSTM"))
    heavy = next(i for i in model.graph.initializer if i.name == "rr")
    heavy.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(heavy) * 4000, "rr"))
    check(model, delays={"y": 1}, pulses=(1, 3))


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("op", GATES)
def test_infinite_frames_stay_where_they_are(op: str, value: float):
    """Real frames that are infinite make the frames after them what they are in the batch model."""

    def far(rng: np.random.Generator, shape: list[int]) -> np.ndarray:
        x = rng.standard_normal(shape).astype(np.float32)
        x[..., 20] = value
        return x

    check(
        layer(
            op,
            before="p = Pad(x, pads)\n c = Slice(p, four, many, two)",
            outs="y, h",
            pads=np.int64([0, 0, 0, 0, 0, 2]),
            four=np.int64([1]),
            many=np.int64([2**31]),
            two=np.int64([2]),
        ),
        inputs={"x": far},
        pulses=(1, 3, 7),
    )
