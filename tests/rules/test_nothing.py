import numpy as np
import pytest

from pulsify_onnx.api import pulsify, verify
from testing.oracle import check, every_length, parse, rand, refused

NOTHING = {
    "a slice of channels": "e = Slice(x, zero, zero, one)",
    "a slice past the last": "e = Slice(x, eight, far, one)",
    "a slice of frames": "e = Slice(x, zero, zero, two)",
    "computed with": "s = Slice(x, zero, zero, one)\n m = Mul(s, gain)\n e = Relu(m)",
    "one nothing after another": "s = Slice(x, zero, zero, one)\n r = Slice(x, eight, far, one)\n"
    " e = Concat<axis=1>(s, r)",
}


def model(nodes: str):
    return parse(
        f"agraph (float[1,4,T] x) => (float[1,U,V] y) {{\n{nodes} }}",
        zero=np.int64([0]),
        one=np.int64([1]),
        two=np.int64([2]),
        eight=np.int64([8]),
        far=np.int64([2**62]),
        sizes=np.int64([0, 4]),
        gain=np.float32([2]),
        w=rand(4, 4, 3),
        b=rand(4),
    )


@pytest.mark.parametrize("kind", NOTHING)
@pytest.mark.parametrize("inputs", ["e, c", "c, e", "e, c, c"])
def test_beside_a_stream(kind, inputs):
    axis = 2 if kind == "a slice of frames" else 1
    if axis == 2 and inputs == "e, c, c":
        return
    found = model(f"{NOTHING[kind]}\n c = Conv<pads=[1,1]>(x, w, b)\n y = Concat<axis={axis}>({inputs})")
    check(found, delays={"y": 1})
    every_length(found)


@pytest.mark.parametrize("kind", [kind for kind in NOTHING if kind != "a slice of frames"])
def test_rows_of_a_batch(kind):
    found = model(f"{NOTHING[kind]}\n c = Conv<pads=[1,1]>(x, w, b)\n y = Concat<axis=1>(e, c)")
    assert verify(found, pulsify(found, pulse=3, end_of_stream=True, batch="dynamic")).ok


def test_a_split_with_a_part_of_nothing():
    check(model("e, r = Split<axis=1>(x, sizes)\n t = Tanh(r)\n y = Concat<axis=1>(e, t)"), delays={"y": 0})


@pytest.mark.parametrize(
    "nodes",
    [
        "y = Slice(x, zero, zero, one)",
        "e = Slice(x, zero, zero, one)\n y = ReduceSum<keepdims=1>(e, one)",
        "e = Slice(x, zero, zero, one)\n y = Concat<axis=1>(e, e)",
        "e = Slice(x, zero, zero, one)\n y = Conv(e, w, b)",
    ],
)
def test_needed(nodes):
    refused(model(nodes), "its result has no elements: dimension 1 is 0", op_type="Slice")
