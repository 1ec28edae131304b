import numpy as np
import pytest

from pulsify_onnx.api import pulsify, verify
from testing.oracle import check, every_length, parse, rand, refused

BODY = "agraph (float[1,T,4] x) => (float[1,T,4] y) {\n"
SUM = "d = Sub(a, m)\n e = Exp(d)\n c = CumSum(e, axis)\n l = Log(c)\n"
FORMS = {
    "kept": "m = ReduceMax<axes=[1]>(a)\n" + SUM + "y = Add(l, m) }",
    "turned": "m = ReduceMax<axes=[-2]>(a)\n" + SUM + "y = Add(m, l) }",
    "squeezed": "n = ReduceMax<axes=[1], keepdims=0>(a)\n m = Unsqueeze(n, axis)\n" + SUM + "y = Add(l, m) }",
    "all axes": "m = ReduceMax(a)\n" + SUM + "y = Add(l, m) }",
}
BACK = "it brings a value over the whole stream back to the frames"


def model(form: str, before: str = "a = Identity(x)\n", after: str = ""):
    body = FORMS.get(form, form)
    if after:
        body = body.replace("y = Add", "z = Add").replace(" }", "\n" + after + " }")
    return parse(
        BODY + before + body,
        axis=np.int64([1]),
        w=rand(4, 4, 3),
        b=rand(4),
        pads=np.int64([0, 2, 0, 0, 1, 0]),
        far=np.float32(500),
        few=np.float32(5),
        one=np.float32(1),
        ends=np.int64([-2]),
        zero=np.int64([0]),
    )


@pytest.mark.parametrize("form", FORMS)
def test_at_once(form):
    tops, sums = (1 if form == "all axes" else 4), 4
    check(model(form), delays={"y": 0}, state_bytes=4 * (tops + 2 * sums) + 8)


@pytest.mark.parametrize("form", FORMS)
def test_every_length(form):
    every_length(model(form))


CONV = "t = Transpose<perm=[0,2,1]>(x)\n k = Conv<pads=[1,1]>(t, w, b)\n a = Transpose<perm=[0,2,1]>(k)\n"


def test_behind_a_delay_and_before_one():
    after = "u = Transpose<perm=[0,2,1]>(z)\n v = Conv<pads=[1,1]>(u, w, b)\n y = Transpose<perm=[0,2,1]>(v)"
    found = model("kept", CONV, after)
    check(found, delays={"y": 2}, rtol=1e-3)
    every_length(found, rtol=1e-3)


@pytest.mark.parametrize("before", ["a = Pad(x, pads, one)\n", "a = Slice(x, zero, ends, axis)\n"])
def test_behind_a_border_or_a_crop(before):
    found = model("kept", before)
    found.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "U"
    check(found, delays={"y": 0})
    every_length(found)


def test_far_from_zero():
    check(model("kept", "f = Mul(x, few)\n a = Sub(f, far)\n"), delays={"y": 0})


def test_a_recurrence_in_log_space():
    """Gates and values of a minimal recurrence: its states are the exponentials of sums of logarithms so far."""
    before = "g = Softplus(x)\n o = Neg(g)\n p = CumSum(o, axis)\n a = Sub(x, p)\n"
    check(model("kept", before, "h = Add(z, p)\n y = Exp(h)"), delays={"y": 0}, beyond=1)


@pytest.mark.parametrize("form", ["kept", "squeezed"])
@pytest.mark.parametrize("before", ["a = Identity(x)\n", CONV])
def test_rows_that_end_apart(form, before):
    found = model(form, before)
    assert verify(found, pulsify(found, pulse=3, end_of_stream=True, batch="dynamic")).ok


@pytest.mark.parametrize(
    "form",
    [
        "m = ReduceMax<axes=[1]>(a)\n d = Sub(a, m)\n y = Exp(d) }",
        "m = ReduceMax<axes=[1]>(a)\n d = Sub(m, a)\n e = Exp(d)\n c = CumSum(e, axis)\n l = Log(c)\n y = Add(l, m) }",
        "m = ReduceMin<axes=[1]>(a)\n" + SUM + "y = Add(l, m) }",
        "m = ReduceMax<axes=[1]>(a)\n" + SUM + "y = Sub(l, m) }",
        "m = ReduceMax<axes=[1]>(a)\n" + SUM.replace("(e, axis)", "<reverse=1>(e, axis)") + "y = Add(l, m) }",
        "m = ReduceMax<axes=[1]>(a)\n" + SUM.replace("(e, axis)", "<exclusive=1>(e, axis)") + "y = Add(l, m) }",
        "m = ReduceMax<axes=[1]>(a)\n" + SUM + "n = ReduceMax<axes=[1]>(l)\n y = Add(n, x) }",
    ],
)
def test_refused(form):
    refused(model(form), BACK)
