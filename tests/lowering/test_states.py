"""States that a model already has: the caller feeds them back, and they keep their names."""

from __future__ import annotations

import json
from contextlib import nullcontext

import numpy as np
import onnx
import pytest

from pulsify_onnx import pulsify
from pulsify_onnx.api import inspect, verify
from pulsify_onnx.cli import main
from pulsify_onnx.errors import CannotStream, UsageError
from testing.oracle import parse, rand, refused, run_stream, session

GRU = """agraph (float[T,B,3] x, float[1,B,4] h0) => (float[T,1,B,4] y, float[1,B,4] h1) {
    y, h1 = GRU<hidden_size=4, linear_before_reset=1>(x, w, r, b, , h0) }"""


def gru():
    return parse(GRU, w=rand(1, 12, 3), r=rand(1, 12, 4), b=rand(1, 24))


def stacked():
    """Two layers: their states are parts of one tensor."""
    return parse(
        """agraph (float[T,1,3] x, float[2,1,3] h0) => (float[T,1,3] y, float[2,1,3] hn) {
        a, b = Split<axis=0>(h0, parts)
        y0, n0 = GRU<hidden_size=3>(x, w, r, g, , a)
        s0 = Squeeze(y0, one)
        y1, n1 = GRU<hidden_size=3>(s0, w, r, g, , b)
        y = Squeeze(y1, one)
        hn = Concat<axis=0>(n0, n1) }""",
        w=rand(1, 9, 3),
        r=rand(1, 9, 3),
        g=rand(1, 18),
        parts=np.asarray([1, 1], np.int64),
        one=np.asarray([1], np.int64),
    )


def lstm():
    return parse(
        """agraph (float[1,T,3] x, float[1,1,4] h0, float[1,1,4] c0) => (float[1,3,T] y, float[1,1,4] hn, float[1,1,4] cn) {
        t = Transpose<perm=[1,0,2]>(x)
        o, hn, cn = LSTM<hidden_size=4>(t, w, r, b, , h0, c0)
        s = Squeeze(o, one)
        m = MatMul(s, v)
        y = Transpose<perm=[1,2,0]>(m) }""",
        w=rand(1, 16, 3),
        r=rand(1, 16, 4),
        b=rand(1, 32),
        v=rand(4, 3),
        one=np.asarray([1], np.int64),
    )


def cached():
    """Two causal convolutions with caches of their own, one of them a part of a common tensor; a third is pulsed."""
    return parse(
        """agraph (float[1,3,T] x, float[1,3,6] in_cache) => (float[1,3,T] y, float[1,3,6] out_cache) {
        c0 = Slice(in_cache, n0, n2, axis)
        c1 = Slice(in_cache, n2, n6, axis)
        a = Concat<axis=2>(c0, x)
        o0 = Slice(a, m2, end, axis)
        f = Conv(a, w, b)
        p = Concat<axis=2>(c1, f)
        o1 = Slice(p, m4, end, axis)
        g = Conv<dilations=[2]>(p, w, b)
        y = Conv<pads=[2,0]>(g, w, b)
        out_cache = Concat<axis=2>(o0, o1) }""",
        w=rand(3, 3, 3),
        b=rand(3),
        axis=_ints(2),
        n0=_ints(0),
        n2=_ints(2),
        n6=_ints(6),
        m2=_ints(-2),
        m4=_ints(-4),
        end=_ints(2**62),
    )


def scanned():
    return parse("""agraph (float[T,3] x, float[3] state) => (float[T,3] y, float[3] stateN) {
        stateN, y = Scan<num_scan_inputs=1, body=step(float[3] s, float[3] f) => (float[3] n, float[3] o) {
            n = Add(s, f)
            o = Tanh(n) }>(state, x) }""")


def looped():
    return parse("""agraph (float[T,3] x, float[3] s0) => (float[T,3] y, float[3] s1) {
        s = Shape<start=0, end=1>(x)
        n = Squeeze(s)
        yes = Constant<value = bool {1}>()
        s1, y = Loop<body=step(int64 i, bool go, float[3] h) => (bool on, float[3] g, float[3] o) {
            on = Identity(go)
            f = Gather(x, i)
            g = Add(h, f)
            o = Relu(g) }>(n, yes, s0) }""")


def _ints(*values):
    return np.asarray(values, np.int64)


MODELS = {
    "gru": (gru, {"h0": "h1"}, True),
    "stacked": (stacked, {"h0": "hn"}, True),
    "lstm": (lstm, {"h0": "hn", "c0": "cn"}, True),
    "cached": (cached, {"in_cache": "out_cache"}, False),
    "scan": (scanned, {"state": "stateN"}, True),
    "loop": (looped, {"s0": "s1"}, True),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("pulse", [1, 2, 7, None])
def test_a_state_of_the_source_is_carried_by_the_caller(name, pulse):
    make, pairs, may_end = MODELS[name]
    model = make()
    for end in (False, True) if may_end else (False,):
        pulsed = pulsify(model, pulse=pulse, states=pairs, end_of_stream=end)
        spec = pulsed.spec
        assert {s["input"]: s["output"] for s in spec["states"] if s["role"] == "source"} == pairs
        sess = session(pulsed.proto().SerializeToString())
        assert [i.name for i in sess.get_inputs()] == [i["name"] for i in spec["inputs"]] + ["valid_frames"] * end + [
            s["input"] for s in spec["states"]
        ]
        assert [o.name for o in sess.get_outputs()] == [o["name"] for o in spec["outputs"]] + [
            s["output"] for s in spec["states"]
        ]
        assert all(o["delay"] == 0 for o in spec["outputs"])
        found = verify(model, pulsed)
        assert found.ok, found.message


def test_nothing_is_added_to_a_model_that_streams_already():
    for name in ("gru", "stacked", "lstm", "scan"):
        make, pairs, _ = MODELS[name]
        assert [s["role"] for s in pulsify(make(), pulse=4, states=pairs).spec["states"]] == ["source"] * len(pairs)
    roles = [s["role"] for s in pulsify(cached(), pulse=4, states={"in_cache": "out_cache"}).spec["states"]]
    assert sorted(roles) == ["history", "source"]


def test_a_state_behind_lookahead_waits_for_the_first_frame():
    model = parse(
        """agraph (float[1,3,T] x, float[1,1,4] h0) => (float[T,1,1,4] y, float[1,1,4] h1) {
        c = Conv<pads=[1,1]>(x, k, b)
        t = Transpose<perm=[2,0,1]>(c)
        y, h1 = GRU<hidden_size=4>(t, w, r, g, , h0) }""",
        k=rand(3, 3, 3),
        b=rand(3),
        w=rand(1, 12, 3),
        r=rand(1, 12, 4),
        g=rand(1, 24),
    )
    for end in (False, True):
        pulsed = pulsify(model, pulse=2, states={"h0": "h1"}, end_of_stream=end)
        assert pulsed.spec["outputs"][0]["delay"] == 1
        found = verify(model, pulsed)
        assert found.ok, found.message


def test_a_reader_may_look_further_back_than_the_cache():
    model = parse(
        """agraph (float[1,3,T] x, float[1,3,1] c0) => (float[1,3,U] y, float[1,3,1] c1) {
        a = Concat<axis=2>(c0, x)
        c1 = Slice(a, m, e, axis)
        y = Conv<pads=[3,0]>(a, w, b) }""",
        w=rand(3, 3, 4),
        b=rand(3),
        m=_ints(-1),
        e=_ints(2**62),
        axis=_ints(2),
    )
    for pulse in (1, 3, None):
        pulsed = pulsify(model, pulse=pulse, states={"c0": "c1"})
        found = verify(model, pulsed)
        assert found.ok, found.message


def test_without_the_option_nothing_is_a_state():
    spec = pulsify(gru(), pulse=4, axes={"x": 0}).spec
    assert [i["kind"] for i in spec["inputs"]] == ["stream", "static"]
    assert [o["kind"] for o in spec["outputs"]] == ["stream", "prefix"]


@pytest.mark.parametrize("name", MODELS)
def test_pairs_that_are_found_are_told_and_not_taken(name):
    make, pairs, _ = MODELS[name]
    found = inspect(make(), axes={"x": {"lstm": 1, "cached": 2}.get(name, 0)})
    assert found.document["possible_states"] == [list(pair) for pair in pairs.items()]
    assert all(s["role"] != "source" for s in found.document["states"])


def test_no_pair_is_told_where_there_is_none():
    model = parse("""agraph (float[T,3] x, float[3] h0) => (float[T,3] y, float[3] h1) {
        y = Add(x, h0)
        h1 = ReduceMax<axes=[0], keepdims=0>(y) }""")
    assert inspect(model, axes={"x": 0}).document["possible_states"] == []


def _refused(model, pairs, reason):
    with pytest.raises(CannotStream) as caught:
        pulsify(model, pulse=4, states=pairs)
    assert any(reason in b.reason for b in caught.value.blockers), [b.reason for b in caught.value.blockers]


def test_states_that_are_none_are_refused():
    _refused(lstm(), {"h0": "cn", "c0": "hn"}, "is not what it has left")
    _refused(stacked_swapped(), {"h0": "hn"}, "is not what it has left")
    _refused(
        parse("""agraph (float[T,3] x, float[3] h0) => (float[T,3] y, float[3] h1) {
        y = Add(x, h0)
        h1 = ReduceMax<axes=[0], keepdims=0>(y) }"""),
        {"h0": "h1"},
        "reads a state of the source at every frame",
    )
    _refused(
        parse("""agraph (float[T,3] x, float[3] s0) => (float[T,3] y, float[3] s1, float[3] z) {
        z = Neg(s0)
        s1, y = Scan<num_scan_inputs=1, body=step(float[3] s, float[3] f) => (float[3] n, float[3] o) {
            n = Add(s, f)
            o = Tanh(n) }>(s0, x) }"""),
        {"s0": "s1"},
        "changes with every pulse",
    )
    _refused(
        parse(
            """agraph (float[T,3] x, float[3] s0) => (float[T,3] y, float[3] s1) {
        t, y = Scan<num_scan_inputs=1, body=step(float[3] s, float[3] f) => (float[3] n, float[3] o) {
            n = Add(s, f)
            o = Tanh(n) }>(s0, x)
        s1 = Mul(t, half) }""",
            half=np.float32(0.5),
        ),
        {"s0": "s1"},
        "is not what it has left",
    )
    _refused(
        parse("""agraph (float[T,3] x, float[3] s0) => (float[T,3] y, float[3] s1) {
        t, y = Scan<num_scan_inputs=1, body=step(float[3] s, float[3] f) => (float[3] n, float[3] o) {
            n = Add(s, f)
            o = Tanh(n) }>(s0, x)
        s1 = Add(t, s0) }"""),
        {"s0": "s1"},
        "reads a state of the source",
    )
    _refused(
        parse(
            """agraph (float[1,3,T] x, float[1,3,2] c0) => (float[1,3,T] y, float[1,3,2] c1) {
        a = Concat<axis=2>(c0, x)
        c1 = Slice(x, m, e, axis)
        y = Conv(a, w, b) }""",
            w=rand(3, 3, 3),
            b=rand(3),
            m=_ints(-2),
            e=_ints(2**62),
            axis=_ints(2),
        ),
        {"c0": "c1"},
        "is no output",
    )


def test_one_start_for_two_recurrences_is_refused():
    model = parse(
        """agraph (float[T,1,3] x, float[1,1,3] h0) => (float[T,1,1,3] y, float[1,1,3] h1) {
        y0, n0 = GRU<hidden_size=3>(x, w, r, g, , h0)
        s0 = Squeeze(y0, one)
        y, h1 = GRU<hidden_size=3>(s0, w, r, g, , h0) }""",
        w=rand(1, 9, 3),
        r=rand(1, 9, 3),
        g=rand(1, 18),
        one=_ints(1),
    )
    with pytest.raises(CannotStream):
        pulsify(model, pulse=4, states={"h0": "h1"})


def stacked_swapped():
    model = stacked()
    last = model.graph.node[-1]
    last.input[0], last.input[1] = last.input[1], last.input[0]
    return model


def test_a_cache_behind_lookahead_is_refused():
    model = parse(
        """agraph (float[1,3,T] x, float[1,3,2] c0) => (float[1,3,T] y, float[1,3,2] c1) {
        f = Conv<pads=[1,1]>(x, w, b)
        a = Concat<axis=2>(c0, f)
        c1 = Slice(a, m, e, axis)
        y = Conv(a, w, b) }""",
        w=rand(3, 3, 3),
        b=rand(3),
        m=_ints(-2),
        e=_ints(2**62),
        axis=_ints(2),
    )
    _refused(model, {"c0": "c1"}, "1 frames late")


def behind_a_cache(after: str, before: str = "f = Tanh(x)"):
    return parse(
        f"""agraph (float[1,3,T] x, float[1,3,2] c0) => (float[1,3,U] y, float[1,3,2] c1) {{
        {before}
        a = Concat<axis=2>(c0, f)
        c1 = Slice(a, m, e, axis)
        {after} }}""",
        w=rand(3, 3, 3),
        b=rand(3),
        m=_ints(-2),
        e=_ints(2**62),
        axis=_ints(2),
    )


@pytest.mark.parametrize(
    "after", ["y = Conv(a, w, b)", "r = Relu(a)\n y = Conv(r, w, b)", "q = Conv(a, w, b)\n y = Add(q, x)"]
)
@pytest.mark.parametrize("pulse", [1, 2, 5, None])
def test_a_cache_of_a_stream_that_may_end(after, pulse):
    """Nothing after the end is read, and the cache that is left is that of the last real frame."""
    model = behind_a_cache(after)
    pulsed = pulsify(model, pulse=pulse, states={"c0": "c1"}, end_of_stream=True)
    assert pulsed.spec["outputs"][0]["delay"] == 0 and pulsed.spec["flush_pulses"] == 0
    found = verify(model, pulsed)
    assert found.ok, found.message
    for frames in range(1, 3 * pulse + 2 if pulse else 1):
        x = np.random.default_rng(frames).standard_normal((1, 3, frames)).astype(np.float32)
        got = run_stream(pulsed, {"x": x}, {}, frames, 0)
        want, left = session(model.SerializeToString()).run(["y", "c1"], {"x": x, "c0": np.zeros((1, 3, 2), "float32")})
        np.testing.assert_allclose(np.concatenate(got["y"], 2)[:, :, :frames], want, atol=1e-5)
        np.testing.assert_allclose(got["c1"][-1], left, atol=1e-6)


@pytest.mark.parametrize(
    "after, before, reason",
    [
        ("y = Conv<pads=[1,1]>(a, w, b)", "f = Tanh(x)", "come after the last data"),
        ("q = Conv(a, w, b)\n y = Conv<pads=[1,1]>(q, w, b)", "f = Tanh(x)", "come after the last data"),
        ("y = Conv(a, w, b)", "f = Conv<strides=[2], pads=[2,0]>(x, w, b)", "past the end"),
    ],
)
def test_a_cache_of_a_stream_that_ends_with_frames_to_come_is_refused(after, before, reason):
    model = behind_a_cache(after, before)
    assert pulsify(model, pulse=4, states={"c0": "c1"})
    with pytest.raises(CannotStream, match=reason):
        pulsify(model, pulse=4, states={"c0": "c1"}, end_of_stream=True)


def test_a_cache_that_is_no_state_says_what_to_do():
    refused(cached(), "not a constant", axes={"x": 2})


@pytest.mark.parametrize("pairs, message", [({"q": "h1"}, "no such input"), ({"h0": "q"}, "no such output")])
def test_names_that_are_none(pairs, message):
    with pytest.raises(UsageError, match=message):
        pulsify(gru(), pulse=4, states=pairs)


def test_the_command_line(tmp_path, capfd):
    source, out = tmp_path / "gru.onnx", tmp_path / "out.onnx"
    onnx.save(gru(), source)

    def run(*arguments):
        with pytest.raises(SystemExit) if arguments[-1] == "fails" else nullcontext() as caught:
            main([str(a) for a in arguments if a != "fails"])
        return (caught.value.code if caught else 0), capfd.readouterr()

    code, told = run("inspect", source, "--axis", "x=0")
    assert code == 0 and "--state h0=h1" in told.err
    code, told = run("convert", source, "-o", out, "--pulse", 4, "--state", "h0=h1")
    assert code == 0 and "already streams" in told.err and "source" in told.out
    spec = json.loads((tmp_path / "out.pulse.json").read_text())
    assert [(s["input"], s["output"], s["role"]) for s in spec["states"]] == [("h0", "h1", "source")]
    assert run("verify", source, out)[0] == 0
    for wrong, message in (("h0", "INPUT=OUTPUT"), ("h0=zzz", "no such output")):
        code, told = run("convert", source, "-o", out, "--pulse", 4, "--state", wrong, "fails")
        assert code == 2 and message in told.err
    code, told = run("convert", source, "-o", out, "--pulse", 4, "--state", "h0=y", "fails")
    assert code == 3 and "cannot stream state" in told.err


def test_a_batch_of_any_size_that_the_stream_fixes():
    model = parse(
        """agraph (float[T,1,3] x, float[1,B,4] h0) => (float[T,1,1,4] y, float[1,B,4] h1) {
        y, h1 = GRU<hidden_size=4>(x, w, r, b, , h0) }""",
        w=rand(1, 12, 3),
        r=rand(1, 12, 4),
        b=rand(1, 24),
    )
    pulsed = pulsify(model, pulse=2, states={"h0": "h1"})
    assert [s["shape"] for s in pulsed.spec["states"]] == [[1, 1, 4]] and verify(model, pulsed).ok


@pytest.mark.parametrize(
    "between",
    [
        "",
        "r = Sigmoid(a)",
        "n = Mul(a, g) q = Add(n, b3) r = Relu(q)",
        "r = BatchNormalization(a, g1, b, b, g1)",
        "t = Transpose<perm=[0,2,1]>(a) q = MatMul(t, k) r = Transpose<perm=[0,2,1]>(q)",
        "r = Conv(a, k1, b)",
    ],
)
def test_what_treats_all_frames_alike_behind_a_cache_is_not_late(between):
    """Three frames of cache, then operators on all of them, then a convolution that needs them: no delay, whatever
    the cache holds.
    """
    model = parse(
        f"""agraph (float[1,3,T] x, float[1,3,3] c0) => (float[1,3,U] y, float[1,3,3] c1) {{
        a = Concat<axis=2>(c0, x)
        c1 = Slice(a, m, e, axis)
        {between or "r = Identity(a)"}
        y = Conv(r, w, b) }}""",
        w=rand(3, 3, 4),
        b=rand(3),
        g=rand(3, 1),
        b3=rand(1, 3, 1),
        g1=abs(rand(3)) + 1,
        k=rand(3, 3),
        k1=rand(3, 3, 1),
        m=_ints(-3),
        e=_ints(2**62),
        axis=_ints(2),
    )
    for pulse in (1, 3, None):
        pulsed = pulsify(model, pulse=pulse, states={"c0": "c1"})
        assert [o["delay"] for o in pulsed.spec["outputs"]] == [0]
        assert [s["role"] for s in pulsed.spec["states"]] == ["source"]
        found = verify(model, pulsed)
        assert found.ok, found.message


KEYS_AND_VALUES = (
    """ck = Concat<axis=1>(k0, k) cv = Concat<axis=1>(v0, v) k1 = Slice(ck, m, e, one) v1 = Slice(cv, m, e, one)"""
)
PROJECTED = """cx = Concat<axis=1>(k0, x) k1 = Slice(cx, m, e, one) v1 = Slice(cx, m, e, one) ck = MatMul(cx, wk) cv_ = MatMul(cx, wv) cv = Tanh(cv_)"""


@pytest.mark.parametrize("caches, back", [(KEYS_AND_VALUES, 6), (KEYS_AND_VALUES, 3), (PROJECTED, 6)])
def test_attention_to_cached_keys_is_not_late(caches, back):
    """Six frames of keys and values before those of the pulse, of which a mask of positions shows the last `back` to
    every query.
    """
    model = parse(
        f"""agraph (float[B,T,4] x, float[B,6,4] k0, float[B,6,4] v0) => (float[B,T,4] y, float[B,6,4] k1, float[B,6,4] v1) {{
        q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv) {caches}
        kt = Transpose<perm=[0,2,1]>(ck) s = MatMul(q, kt) n_ = Shape<start=1,end=2>(x) n = Squeeze(n_) l = Add(n, six)
        rq = Range(zero, n, step) rk = Range(zero, l, step) uq = Unsqueeze(rq, one) d_ = Sub(rk, uq) d = Sub(six, d_)
        late = Less(d, zero) far = Less(back, d) closed = Or(late, far) bias = Where(closed, low, none) sb = Add(s, bias)
        p = Softmax<axis=-1>(sb) y = MatMul(p, cv) }}""",
        wq=rand(4, 4),
        wk=rand(4, 4, seed=1),
        wv=rand(4, 4, seed=2),
        m=_ints(-6),
        e=_ints(2**62),
        one=_ints(1),
        six=np.int64(6),
        zero=np.int64(0),
        step=np.int64(1),
        back=np.int64(back - 1),
        low=np.float32(-np.inf),
        none=np.float32(0),
    )
    if caches is PROJECTED:
        model.graph.input.remove(next(i for i in model.graph.input if i.name == "v0"))
        model.graph.output.remove(next(o for o in model.graph.output if o.name == "v1"))
    states = {"k0": "k1", "v0": "v1"} if caches is KEYS_AND_VALUES else {"k0": "k1"}
    for pulse, end in ((1, False), (3, False), (8, False), (None, False), (1, True), (3, True), (None, True)):
        pulsed = pulsify(model, pulse=pulse, states=states, end_of_stream=end)
        (out,) = pulsed.spec["outputs"]
        assert (out["delay"], out["receptive_field"]) == (0, back)
        assert {s["role"] for s in pulsed.spec["states"]} <= {"source", "clock", *(("seen",) if end else ())}
        found = verify(model, pulsed)
        assert found.ok, found.message
