"""Histories of quantised streams: integers, before they are dequantised, at the zero point; and the kernels that
runtimes make of that.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from pulsify_onnx import pulsify
from pulsify_onnx.algebra.facts import Mirror
from pulsify_onnx.algebra.plan import Op, Plan, Step, Window, leaves
from pulsify_onnx.algebra.plan_checks import check_plan
from pulsify_onnx.api import analyze
from pulsify_onnx.arrays import Const
from pulsify_onnx.lowering import lower
from pulsify_onnx.model.load import load
from pulsify_onnx.passes.quantised_histories import quantised_histories
from pulsify_onnx.runtime.runner import PulseRunner
from pulsify_onnx.verification.check import verify
from testing.oracle import check, parse, rand, session
from testing.quantised import integer_kernels, network
from testing.rowing import batched, check_rows

WEIGHTS = dict(
    s=np.float32(0.02),
    z=np.uint8(37),
    zi=np.int8(-5),
    ys=np.float32(0.03),
    yz=np.uint8(90),
    ws=np.float32(0.01),
    wq=np.random.default_rng(0).integers(-90, 90, (4, 4, 3)).astype(np.int8),
)


def model(body: str, head: str = "", zero: str = "z", **weights):
    """Operators `c` on a dequantised stream `d`, and on `w`."""
    return parse(
        f"""{head}agraph (float[1,4,T] x) => (float[1,C,U] y) {{
        q = QuantizeLinear(x, s, {zero})
        d = DequantizeLinear(q, s, {zero})
        w = DequantizeLinear(wq, ws)
        {body}
        p = QuantizeLinear(c, ys, yz)
        y = DequantizeLinear(p, ys, yz) }}""",
        **WEIGHTS,
        **weights,
    )


def rewritten(proto, end: bool = False) -> tuple[Plan, Plan]:
    """The analysed plan and what becomes of it."""
    plan = analyze(proto, end_of_stream=end).at()
    assert not plan.blockers
    changed = quantised_histories(plan, load(proto))
    check_plan(changed, "quantised histories")
    return plan, changed


def of(plan: Plan, wire: str) -> Step:
    return next(s for s in plan.steps if wire in s.wires)


def windows(step: Step) -> list[Window]:
    return [leaf for leaf in leaves(step) if isinstance(leaf, Window)]


# the pass


def test_a_reader_dequantises_a_window_of_integers():
    plan, changed = rewritten(model("c = Conv<pads=[2,0]>(d, w)"))
    assert windows(of(plan, "c"))[0].wire == "d" and not of(plan, "d").deferred
    (window,) = windows(of(changed, "c"))
    conv = of(changed, "c").exprs[0]
    assert isinstance(conv, Op) and isinstance(conv.inputs[0], Op) and conv.inputs[0].op_type == "DequantizeLinear"
    assert window.wire == "q" and window.back == 2 and of(changed, "d").deferred
    assert window.mask is not None and window.mask.border == Const(np.full((1, 1, 1), 37, np.uint8))
    assert window.mask.arrival and not window.mask.start and not window.mask.end


def test_zeros_that_are_zero_need_no_mask():
    _, changed = rewritten(model("c = Conv<pads=[2,0]>(d, w)", zero="z0", z0=np.uint8(0)))
    assert of(changed, "d").deferred and windows(of(changed, "c"))[0].mask is None


@pytest.mark.parametrize("opset", [17, 21, 22])
def test_frames_that_a_stride_leaves_out_are_cut_off_the_integers(opset):
    proto = parse(
        f"""<ir_version: 10, opset_import: ["": {opset}]> agraph (float[1,4,T] x) => (float[1,3,U] y) {{
        q = QuantizeLinear(x, s, zi)
        d = DequantizeLinear(q, s, zi)
        w = DequantizeLinear(wq, s)
        y = Conv<strides=[2]>(d, w, b) }}""",
        s=np.float32(0.02),
        zi=np.int8(-5),
        b=rand(3),
        wq=np.random.default_rng(0).integers(-90, 90, (3, 4, 1)).astype(np.int8),
    )
    plan, changed = rewritten(proto)
    assert not of(plan, "d").deferred and of(changed, "d").deferred
    made = {n.output[0]: n for n in pulsify(proto, pulse=4).proto().graph.node}
    cut = made[made[made["y"].input[0]].input[0]]
    assert made[made["y"].input[0]].op_type == "DequantizeLinear" and cut.op_type == "Slice" and cut.input[0] == "q"
    check(proto)  # at onnxruntime's optimisation too, which cuts behind DequantizeLinear to no valid file


def test_nothing_is_deferred_without_a_history():
    plan, changed = rewritten(model("c = Relu(d)"))
    assert changed.steps == plan.steps and changed.wires == plan.wires


def test_a_step_that_cannot_be_undone_stays():
    plan = analyze(model("c = Conv<pads=[2,0]>(d, w)")).at()
    fixed = replace(plan, steps=tuple(replace(s, undo=None) for s in plan.steps))
    assert quantised_histories(fixed, load(model("c = Relu(d)"))) == fixed


def test_what_no_integer_becomes_is_masked_behind():
    _, changed = rewritten(model("c = MaxPool<kernel_shape=[3], pads=[1,1]>(d)"))
    (window,) = windows(of(changed, "c"))
    assert (
        window.wire == "d"
        and of(changed, "d").deferred
        and window.mask is not None
        and window.mask.start
        and not window.mask.arrival
    )
    states = pulsify(model("c = MaxPool<kernel_shape=[3], pads=[1,1]>(d)"), pulse=4).spec["states"]
    assert [s["dtype"] for s in states if s["role"] == "history"] == ["uint8"]


def test_mirrored_integers():
    proto = model(
        'e = Pad<mode="reflect">(d, pads)\n eq = QuantizeLinear(e, s, z)\n ed = DequantizeLinear(eq, s, z)\n c = '
        "Conv(ed, w)",
        pads=np.array([0, 0, 2, 0, 0, 0]),
    )
    _, changed = rewritten(proto)
    (window,) = windows(of(changed, "c"))
    assert window.wire == "eq" and window.mask is not None and isinstance(window.mask.border, Mirror)
    check(proto)


def test_a_border_that_is_made_solid_is_made_so_on_the_integers():
    proto = model(
        "e = Pad(d, pads)\n eq = QuantizeLinear(e, s, z)\n ed = DequantizeLinear(eq, s, z)\n g = Sigmoid(ed)\n"
        "gq = QuantizeLinear(g, ys, yz)\n gd = DequantizeLinear(gq, ys, yz)\n c = Conv<pads=[0,2]>(gd, w)",
        pads=np.array([0, 0, 2, 0, 0, -2]),
    )
    pulsed = check(proto)
    assert {s["dtype"] for s in pulsed.spec["states"] if s["role"] == "history"} == {"uint8"}
    assert integer_kernels(pulsed.proto()) == integer_kernels(proto)


def test_signed_integers_are_carried_unsigned_for_a_single_reader():
    _, changed = rewritten(model("c = Conv<pads=[2,0]>(d, w)", zero="zi"))
    assert changed.wires["q"].dtype == ir.DataType.UINT8 and windows(of(changed, "c"))[0].border == Const(
        np.full((1, 1, 1), 123, np.uint8)
    )
    _, changed = rewritten(
        model(
            "h = Conv<pads=[2,0]>(d, w)\n hq = QuantizeLinear(h, ys, yz)\n hd = DequantizeLinear(hq, ys, yz)\n c = "
            "Add(hd, d)",
            zero="zi",
        )
    )
    assert changed.wires["q"].dtype == ir.DataType.INT8 and windows(of(changed, "h"))[0].border == Const(
        np.full((1, 1, 1), -5, np.int8)
    )


def test_a_signed_output_stays_signed():
    proto = parse(
        """agraph (float[1,4,T] x) => (int8[1,4,T] q, float[1,4,U] y) {
        q = QuantizeLinear(x, s, zi)
        d = DequantizeLinear(q, s, zi)
        w = DequantizeLinear(wq, ws)
        y = Conv<pads=[2,0]>(d, w) }""",
        **WEIGHTS,
    )
    assert rewritten(proto)[1].wires["q"].dtype == ir.DataType.INT8
    check(proto, bits=False)


def test_types_that_cannot_be_concatenated():
    head = '<ir_version: 10, opset_import: ["": 21]>\n'
    text = """agraph (float[1,4,T] x) => (float[1,4,U] y) {
        q = QuantizeLinear<output_dtype=22>(x, s)
        d = DequantizeLinear(q, s)
        y = Conv<pads=[2,0]>(d, w) }"""
    pulsed = check(parse(head + text, s=np.float32(0.2), w=rand(4, 4, 3)), bits=False)
    assert [s["dtype"] for s in pulsed.spec["states"]] == ["float32"]


# the kernels


def test_a_quarter_of_the_state():
    proto = model("c = Conv<pads=[4,0], dilations=[2]>(d, w)", zero="z0", z0=np.uint8(0))
    assert pulsify(proto, pulse=3).spec["state_bytes"] == 16


@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize("seed", range(24))
def test_networks(seed, kind):
    rng = np.random.default_rng([seed, 7])
    proto = network(seed, int(rng.integers(1, 8)), kind, floats=bool(seed % 2))
    pulsed = check(proto, pulses=(1, int(rng.integers(2, 9))), length=int(rng.integers(8, 50)))
    assert integer_kernels(pulsed.proto()) == integer_kernels(proto)


@pytest.mark.parametrize("kind", ["uint16", "int16"])
@pytest.mark.parametrize("seed", range(4))
def test_networks_of_16_bits(seed, kind):
    """They have no integer kernels: convolutions sum floats, in an order of their own."""
    check(network(seed, 5, kind), pulses=(1, 5), bits=False, rtol=2e-3)


@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize("seed", range(100, 106))
def test_rows_of_networks(seed, kind):
    proto = network(seed, 5, kind)
    check_rows(batched(proto), pulses=(3,), rows=4, rounds=16, alone=proto, shortest=4)


@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize("seed", range(200, 208))
def test_networks_with_pulses_of_any_size(seed, end):
    rng, proto = np.random.default_rng(seed), network(seed, 5, "uint8" if seed % 2 else "int8")
    pulsed = pulsify(proto, pulse=None, end_of_stream=end)
    sizes = [int(n) for n in rng.choice([1, 1, 2, 3, 5, 17], 9)]
    total = sum(sizes) - int(rng.integers(0, sizes[-1])) if end else sum(sizes) + 60
    x = rng.standard_normal((1, 4, total)).astype(np.float32)
    want = session(proto.SerializeToString()).run(None, {"x": x})[0]
    runner, got, at = PulseRunner(pulsed), [], 0
    for size in sizes + [1] * pulsed.spec["flush_pulses"]:
        chunk = x[:, :, at : at + size]
        chunk = np.concatenate([chunk, np.full((1, 4, size - chunk.shape[2]), np.nan, np.float32)], 2)
        got.append(runner.step({"x": chunk}, min(max(total - at, 0), size))["y"])
        at += size
    flow = np.concatenate(got, 2)[:, :, pulsed.spec["outputs"][0]["delay"] :]
    n = want.shape[2] if end else min(flow.shape[2], want.shape[2])
    assert n > 0
    np.testing.assert_array_equal(flow[:, :, :n], want[:, :, :n])


def test_histories_behind_take_the_kernels_away(monkeypatch):
    proto = network(3, 6)
    assert sum(integer_kernels(pulsify(proto, pulse=4).proto()).values()) == sum(integer_kernels(proto).values())
    monkeypatch.setattr(lower, "quantised_histories", lambda plan, source: plan)
    assert sum(integer_kernels(pulsify(proto, pulse=4).proto()).values()) < sum(integer_kernels(proto).values())


@pytest.mark.parametrize("zero", ["z", "zi"])
def test_verify_sees_what_runs(monkeypatch, zero):
    """At onnxruntime's optimisation, where float convolutions round otherwise than the integer ones of the batch
    model.
    """
    proto = model("c = Conv<pads=[2,0]>(d, w)", zero=zero)
    if zero == "zi":  # a kernel of integers on x86 needs both sides of one type
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.int8(-38), "yi"))
        for node in proto.graph.node:
            node.input[:] = ["yi" if i == "yz" else i for i in node.input]
    found = verify(proto, pulsify(proto, pulse=4), frames=400)
    assert found.ok and found.ties == 0 and found.max_error == 0
    monkeypatch.setattr(lower, "quantised_histories", lambda plan, source: plan)
    assert verify(proto, pulsify(proto, pulse=4), frames=400).ties > 0


def test_verify_of_kernels_that_do_not_run():
    """Onnxruntime makes an integer kernel of a stream with a scale per channel, which that does not take: compared
    as it is written.
    """
    proto = model(
        "e = DequantizeLinear<axis=1>(f, sv, zv)\n c = Conv<pads=[2,0]>(e, w)".replace(
            "e =", "f = QuantizeLinear<axis=1>(x, sv, zv)\n e ="
        ),
        sv=np.array([0.02, 0.03, 0.01, 0.04], np.float32),
        zv=np.array([3, 100, 0, 128], np.uint8),
    )
    found = verify(proto, pulsify(proto, pulse=4))
    assert found.ok and found.compared


@pytest.mark.parametrize("zero", ["z", "zi"])
@pytest.mark.parametrize("end", [False, True])
def test_a_reader_of_fewer_frames_dequantises_these(zero, end):
    """Nothing is cut off between a DequantizeLinear and what runtimes compute with it."""
    strided = model(
        "v = DequantizeLinear(narrow, ws)\n c = Conv<strides=[2]>(d, v)", zero=zero, narrow=WEIGHTS["wq"][..., :1]
    )
    _, changed = rewritten(strided, end)
    (window,) = windows(of(changed, "c"))
    assert int(window.frames.extra) == -1 and of(changed, "d").deferred
    nodes = check(strided, pulses=(2, 8)).proto().graph.node
    conv = next(n for n in nodes if n.op_type == "Conv")
    assert [n.op_type for n in nodes if conv.input[0] in n.output] == ["DequantizeLinear"]


@pytest.mark.parametrize("opset", (13, 21, 23))
def test_integers_that_onnxruntime_makes_unsigned_still_load(opset):
    """A Reshape that it puts before a product takes quantised values along, which have a type of their own."""
    product = parse(
        f"""<ir_version: 10, opset_import: ["": {opset}]> agraph (float[1,T,4] x) => (float[1,U,3] y) {{
        q = QuantizeLinear(x, s, zi)
        d = DequantizeLinear(q, s, zi)
        v = DequantizeLinear(wq, ws)
        m = MatMul(d, v)
        a = Add(m, bias)
        p = QuantizeLinear(a, ys, zi)
        y = DequantizeLinear(p, ys, zi) }}""",
        **{k: WEIGHTS[k] for k in ("s", "zi", "ys", "ws")},
        wq=WEIGHTS["wq"][:, :3, 0],
        bias=rand(3),
    )
    check(product, pulses=(3, 12), bits=False)
