"""Streams of a multiple of some number of frames, as the name of the input's dimension says."""

import pytest

from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.multiples import of_multiples, promised, quotient, same
from pulsify_onnx.algebra.ordering import smaller
from pulsify_onnx.api import pulsify, verify
from testing.oracle import check, every_length, parse, rand, refused

T = Length.symbol("T")
W = {"w": rand(3, 3, 3), "b": rand(3)}
NEAREST = 'mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"'
LINEAR = 'mode="linear", coordinate_transformation_mode="half_pixel"'


def unet(dim, attributes=NEAREST, strides=(2,)):
    """Convolutions with strides, and the way back up to the length of each of what was strided."""
    down, up, last = [], [], "x"
    for k, stride in enumerate(strides):
        down.append(f"d{k} = Conv<pads=[1,1], strides=[{stride}]>({last}, w, b)")
        last = f"d{k}"
    skips = ["x", *(f"d{k}" for k in range(len(strides)))]
    for k in reversed(range(len(strides))):
        up.append(f"""s{k} = Shape<start=2, end=3>({skips[k]}) z{k} = Concat<axis=0>(rest, s{k})
            r{k} = Resize<{attributes}>({last}, none, none, z{k}) c{k} = Conv<pads=[1,1]>(r{k}, w, b)
            u{k} = Add(c{k}, {skips[k]})""")
        last = f"u{k}"
    lines = "\n".join((*down, *up))
    return parse(
        f"""<ir_version: 8, opset_import: ["": 18]>
        agraph (float[1,3,"{dim}"] x) => (float[1,3,"{dim}"] y)
        <int64[2] rest = {{1, 3}}, float[0] none = {{}}> {{ {lines} y = Identity({last}) }}""",
        **W,
    )


@pytest.mark.parametrize("attributes", [NEAREST, LINEAR])
@pytest.mark.parametrize("dim, strides, multiple", [("2*k", (2,), 2), ("4*s0", (2, 2), 4), ("12*k", (3, 2), 6)])
def test_resized_to_what_was_strided(dim, strides, multiple, attributes):
    pulsed = check(unet(dim, attributes, strides), pulses=(1, 7))
    assert pulsed.spec["pulse_multiple"] == pulsed.spec["length_multiple"] == multiple


def test_every_multiple():
    model = unet("2*k")
    every_length(model, pulses=(2, 4))
    assert verify(model, pulsify(model, pulse=4, end_of_stream=True)).ok
    assert verify(model, pulsify(model, pulse=4)).ok


@pytest.mark.parametrize("dim", ["T", "3*k", "2*k+1", "2 k"])
def test_no_promise_no_stream(dim):
    refused(unet(dim), "every sampling point depends on the length of the stream", op_type="Resize")


def test_promises():
    assert [promised(d) for d in ("2*k", "k*8", "2*(3*k)", "4*k + 6", "8*((T - 1)//8)")] == [2, 8, 6, 2, 8]
    assert [promised(d) for d in ("T", "2*k + 1", "2**k", "a*b", "-2*k", "0*k", "2*", "2*(k", None, "Max(4, 2*k)")] == [
        1
    ] * 10


def test_lengths_of_multiples():
    assert of_multiples((T + 1).floordiv(2), 2) == T
    assert of_multiples((T + 3).floordiv(4) * 4, 4) == T * 4
    assert of_multiples((T + 1).floordiv(2), 3) == (T * 3 + 1).floordiv(2)


PADDED = """ng = Neg(sh) more = Mod(ng, eight) pads = Concat<axis=0>(zero, zero, zero, zero, more, zero)
    p = Pad(x, pads)"""
COUNTED = {
    "ceil": "up = Add(sh, seven) blocks = Div(up, eight)",
    "float": "n = Cast<to=1>(sh) share = Div(n, octave) whole = Ceil(share) blocks = Cast<to=7>(whole)",
    "floor": "blocks = Div(sh, eight)",
}


def blocks(count, source):
    """Attention within blocks of eight frames, of `source`."""
    return parse(
        f"""agraph (float[1,T,8] x) => (float[1,U,8] y)
        <int64[1] zero = {{0}}, int64[1] eight = {{8}}, int64[1] seven = {{7}}, float[1] octave = {{8}},
         int64[3] rest = {{8, 2, -1}}, int64[3] back = {{1, -1, 8}}> {{
        sh = Shape<start=1, end=2>(x) {PADDED if source == "p" else ""} {COUNTED[count]}
        size = Concat<axis=0>(blocks, rest)
        h = Reshape({source}, size) r = Transpose<perm=[0,2,1,3]>(h) k = MatMul(r, wk)
        kt = Transpose<perm=[0,1,3,2]>(k) s = MatMul(r, kt) a = Softmax<axis=-1>(s) m = MatMul(a, r)
        j = Transpose<perm=[0,2,1,3]>(m) y = Reshape(j, back) }}""",
        wk=rand(4, 4),
    )


@pytest.mark.parametrize("count", ["ceil", "float"])
def test_blocks_of_padded_frames(count):
    pulsed = check(blocks(count, "p"), pulses=(8, 24), length=45)
    assert "length_multiple" not in pulsed.spec and pulsed.spec["pulse_multiple"] == 8
    every_length(blocks(count, "p"), pulses=(8,))


@pytest.mark.parametrize("count", ["ceil", "float", "floor"])
def test_blocks_of_whole_frames(count):
    pulsed = check(blocks(count, "x"), pulses=(8, 24), length=45)
    assert pulsed.spec["length_multiple"] == pulsed.spec["pulse_multiple"] == 8


def test_quotients():
    up = (T + 7).floordiv(8)
    assert quotient(T + -T - (-T).floordiv(8) * 8 * 3, up * 8) == (3, 1)
    assert quotient(T * 8, up * 16) == (4, 8) and quotient(T * 8, up * 3) is None
    assert quotient(T * 8, T.floordiv(8) * 16) == (4, 8)
    assert quotient(T * 8 + 1, up) is None and quotient(T, Length.of(2)) is None
    assert same((T * 7).floordiv(8), T - (T + 7).floordiv(8)) and not same((T * 7).floordiv(8), T - T.floordiv(8))
    assert not same(smaller(T, Length.symbol("B") + 3), T)
