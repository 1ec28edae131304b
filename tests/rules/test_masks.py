"""What counts as masked, in the many ways that masks are computed."""

import time

import numpy as np
import onnx
import pytest
from test_attention import BAND, model, window

from pulsify_onnx.api import pulsify
from testing.oracle import check, refused

LOWEST = float(np.finfo(np.float32).min)

MASKS = {
    "one_minus_times_low": "of = Cast<to=1>(open)\n inv = Sub(onef, of)\n bias = Mul(inv, low)\n masked = "
    "Add(scores, bias)",
    "minus_one_times_high": "of = Cast<to=1>(open)\n inv = Sub(of, onef)\n bias = Mul(inv, high)\n masked = "
    "Add(scores, bias)",
    "masked_scores_less_high": "of = Cast<to=1>(open)\n ms = Mul(scores, of)\n inv = Sub(onef, of)\n bias = "
    "Mul(inv, high)\n masked = Sub(ms, bias)",
    "negated": "of = Cast<to=1>(open)\n inv = Sub(onef, of)\n bias = Mul(inv, high)\n down = Neg(bias)\n masked = "
    "Add(scores, down)",
    "logarithm": "of = Cast<to=1>(open)\n bias = Log(of)\n masked = Add(scores, bias)",
    "where_not": "shut = Not(open)\n bias = Where(shut, low, zerof)\n masked = Add(bias, scores)",
    "equal_zero": "of = Cast<to=1>(open)\n shut = Equal(of, zerof)\n masked = Where(shut, ninf, scores)",
    "min": "bias = Where(open, high, low)\n masked = Min(scores, bias)",
    "twice": "bias = Where(open, zerof, low)\n once = Add(scores, bias)\n masked = Add(once, bias)",
    "before_the_scale": "once = Where(open, raw, low)\n masked = Div(once, scale)",
    "heads": "o1 = Unsqueeze(open, ax0)\n oh = Concat<axis=0>(o1, o1)\n masked = Where(oh, scores, low)",
    "expanded": "o1 = Unsqueeze(open, ax01)\n oh = Expand(o1, two)\n masked = Where(oh, scores, low)",
}


@pytest.mark.parametrize("low", [-15e3, LOWEST], ids=["15e3", "lowest"])
@pytest.mark.parametrize("name", MASKS)
def test_masks(name, low):
    m = model(
        BAND,
        MASKS[name],
        onef=np.float32(1),
        low=np.float32(low),
        high=np.float32(-low),
        two=np.asarray([1, 2, 1, 1]),
        ax01=np.asarray([0, 1]),
        **window(4, 1),
    )
    check(m, delays={"y": 1}, pulses=(3,))


@pytest.mark.parametrize("low", [-65504, -1e4, -np.inf])
def test_half_precision(low):
    m = model(
        BAND,
        "half = Cast<to=10>(scores)\n bias = Where(open, zeroh, low)\n m16 = Add(half, bias)\n w16 = "
        "Softmax<axis=-1>(m16)\n masked = Identity(scores)",
        zeroh=np.float16(0),
        low=np.float16(low),
        **window(4, 1),
    )
    weights = next(n for n in m.graph.node if n.output[0] == "weights")
    weights.CopyFrom(onnx.helper.make_node("Cast", ["w16"], ["weights"], to=onnx.TensorProto.FLOAT))
    check(m, delays={"y": 1}, rtol=3e-3)


PADDING = """
    real = Less(i, lengths)
    rk = Unsqueeze(real, ax0)
    seen = And(open, rk)
"""


def test_a_padding_mask_beside_the_band_in_arithmetic():
    mask = "of = Cast<to=1>(seen)\n inv = Sub(onef, of)\n bias = Mul(inv, low)\n masked = Add(scores, bias)"
    m = model(BAND + PADDING, mask, onef=np.float32(1), low=np.float32(-1e9), **window(4, 1))
    m.graph.input.append(onnx.helper.make_tensor_value_info("lengths", onnx.TensorProto.INT64, [1]))
    check(m, axes={"x": 1}, statics={"lengths": np.asarray([10**6])}, delays={"y": 1})


HEADS = (
    BAND
    + """
    nh = LessOrEqual(d, lefts)
    ph = GreaterOrEqual(d, rights)
    oh = And(nh, ph)
"""
)


def heads(lefts, rights, low):
    return model(
        HEADS,
        "masked = Where(oh, scores, low)",
        lefts=np.asarray(lefts).reshape(2, 1, 1),
        rights=np.asarray(rights).reshape(2, 1, 1),
        low=np.float32(low),
        **window(4, 1),
    )


@pytest.mark.parametrize("low", [-1e9, -np.inf])
def test_heads_with_windows_of_their_own(low):
    check(heads([2, 5], [-1, 0], low), delays={"y": 1})


NOBODY = "some query sees no key at all"


@pytest.mark.parametrize("low", [-1e9, -np.inf])
@pytest.mark.parametrize("rights", [[3, 0], [2, 2]])
def test_a_head_whose_first_queries_see_nothing_is_refused(low, rights):
    refused(heads([4, 4], rights, low), NOBODY, op_type="Softmax")


def test_a_head_that_sees_nothing_is_refused():
    refused(heads([-2, 4], [-1, -1], -1e9), NOBODY, op_type="Softmax")


def test_a_mask_that_scaling_lifts_is_refused():
    refused(
        model(
            BAND,
            "once = Where(open, raw, low)\n masked = Div(once, scale)",
            low=np.float32(-1e4),
            scale=np.float32(100),
            **window(4, 1),
        ),
        "whole stream",
    )


def test_a_mask_that_is_taken_back_is_refused():
    mask = (
        "bias = Where(open, zerof, low)\n once = Add(scores, bias)\n again = Where(open, scores, low)\n masked "
        "= Sub(once, again)"
    )
    refused(model(BAND, mask, low=np.float32(-1e9), **window(4, 1)), "whole stream")


def test_a_masked_score_that_is_squashed_is_refused():
    refused(
        model(
            BAND,
            "bias = Where(open, zerof, low)\n once = Add(scores, bias)\n masked = Tanh(once)",
            low=np.float32(-1e9),
            **window(4, 1),
        ),
        "whole stream",
    )


def test_a_window_of_a_thousand_frames_is_found_quickly():
    began = time.process_time()
    pulsed = pulsify(model(BAND, **window(1000, 1)), pulse=4)
    assert pulsed.spec["outputs"][0]["receptive_field"] == 1002
    assert time.process_time() - began < 6
