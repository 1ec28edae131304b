"""Linear interpolation as index arithmetic, as dynamo writes it, streams as the Resize that it is."""

import pytest

from pulsify_onnx.api import pulsify, verify
from testing.oracle import check, every_length, parse, rand, refused

INDEX = "the stream by index"


def model(factor=2, nd=True, half="half", top="last", clip="Clip(f1, , top)"):
    """Convolutions with a stride, and back up by positions of the frames."""
    scale = 1 / factor
    if nd:
        pick = """dt = Transpose<perm=[2,0,1]>(d) ia = Unsqueeze(f0, m1) ib = Unsqueeze(i1, m1)
        ga = GatherND(dt, ia) gb = GatherND(dt, ib) a = Transpose<perm=[1,2,0]>(ga) b = Transpose<perm=[1,2,0]>(gb)"""
    else:
        pick = "a = Gather<axis=-1>(d, f0) b = Gather<axis=-1>(d, i1)"
    return parse(
        f"""<ir_version: 8, opset_import: ["": 18]>
        agraph (float[1,3,T] x) => (float[1,3,U] y, float[1,3,V] z)
        <int64 zero = {{0}}, int64 one = {{1}}, int64 mone = {{-1}}, int64[1] m1 = {{-1}}, int64 by = {{{factor}}},
         float half = {{0.5}}, float none = {{0}}, float fzero = {{0}}, float fone = {{1}}, float scale = {{{scale}}}> {{
        d = Conv<pads=[1,1], strides=[{factor}]>(x, w, bias) sh = Shape<start=2, end=3>(x) n = Squeeze(sh)
        less = Add(n, mone) last = Div(less, by) whole = Add(last, one) long = Mul(by, whole) top = Identity({top})
        r = Range(zero, long, one) rf = Cast<to=1>(r) r5 = Add(rf, {half}) rs = Mul(r5, scale) s = Sub(rs, {half})
        p = Clip(s, fzero) f0 = Cast<to=7>(p) f1 = Add(f0, one) i1 = {clip} {pick}
        ff = Cast<to=1>(f0) q = Sub(p, ff) share = Clip(q, fzero, fone)
        diff = Sub(b, a) more = Mul(diff, share) y0 = Add(a, more) y = Conv<pads=[1,1]>(y0, w, bias)
        z = Conv<pads=[1,1]>(x, w, bias) }}""",
        w=rand(3, 3, 3),
        bias=rand(3),
    )


@pytest.mark.parametrize("nd", [True, False])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_interpolated_by_positions(factor, nd):
    check(model(factor, nd), pulses=(1, 2, 7))


def test_every_length():
    every_length(model())
    assert verify(model(), pulsify(model(), pulse=4, end_of_stream=True)).ok


def test_one_after_another():
    """The second one reads what the first one gives, which is an output too."""
    layer = """n{k} = Shape<start=2, end=3>({x}) c{k} = Squeeze(n{k}) last{k} = Sub(c{k}, one) long{k} = Mul(c{k}, two)
        r{k} = Range(zero, long{k}, one) rf{k} = Cast<to=1>(r{k}) r5{k} = Add(rf{k}, half) rs{k} = Mul(r5{k}, half)
        s{k} = Sub(rs{k}, half) p{k} = Clip(s{k}, fzero) f{k} = Cast<to=7>(p{k}) g{k} = Add(f{k}, one)
        i{k} = Min(g{k}, last{k}) a{k} = Gather<axis=2>({x}, f{k}) b{k} = Gather<axis=2>({x}, i{k})
        ff{k} = Cast<to=1>(f{k}) q{k} = Sub(p{k}, ff{k}) d{k} = Sub(b{k}, a{k}) m{k} = Mul(q{k}, d{k})
        {y} = Add(m{k}, a{k})"""
    check(
        parse(
            f"""agraph (float[1,3,T] x) => (float[1,3,U] y, float[1,3,V] z)
            <int64 zero = {{0}}, int64 one = {{1}}, int64 two = {{2}}, float half = {{0.5}}, float fzero = {{0}}> {{
            h = Conv<pads=[1,1]>(x, w, bias) {layer.format(k=1, x="h", y="y")} {layer.format(k=2, x="y", y="z")} }}""",
            w=rand(3, 3, 3),
            bias=rand(3),
        ),
        pulses=(1, 3),
    )


def test_other_positions_stay():
    """Corners that are aligned, or another clip."""
    refused(model(half="none"), INDEX, op_type="GatherND")
    refused(model(top="less"), INDEX, op_type="GatherND")


def by_size(dim):
    """Back to the length of what was strided, by a scale that is computed from both lengths."""
    return parse(
        f"""<ir_version: 8, opset_import: ["": 18]>
        agraph (float[1,3,"{dim}"] x) => (float[1,3,"{dim}"] y)
        <int64 zero = {{0}}, int64 one = {{1}}, int64[1] m1 = {{-1}}, float half = {{0.5}}, float fzero = {{0}},
         float fone = {{1}}> {{
        d = Conv<pads=[1,1], strides=[2]>(x, w, bias) sh = Shape<start=2, end=3>(x) n = Squeeze(sh)
        dh = Shape<start=2, end=3>(d) m = Squeeze(dh) top = Sub(m, one) nf = Cast<to=1>(n) mf = Cast<to=1>(m)
        scale = Div(mf, nf) r = Range(zero, n, one) rf = Cast<to=1>(r) r5 = Add(rf, half) rs = Mul(r5, scale)
        s = Sub(rs, half) p = Clip(s, fzero) f0 = Cast<to=7>(p) f1 = Add(f0, one) i1 = Clip(f1, , top)
        a = Gather<axis=-1>(d, f0) b = Gather<axis=-1>(d, i1) ff = Cast<to=1>(f0) q = Sub(p, ff)
        share = Clip(q, fzero, fone) diff = Sub(b, a) more = Mul(diff, share) y0 = Add(a, more)
        c = Conv<pads=[1,1]>(y0, w, bias) y = Add(c, x) }}""",
        w=rand(3, 3, 3),
        bias=rand(3),
    )


def test_to_a_size():
    assert check(by_size("2*k"), pulses=(2, 6)).spec["length_multiple"] == 2
    refused(by_size("T"), "brings a value over the whole stream back to the frames", op_type="Mul")
