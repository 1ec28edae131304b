import pytest

from testing.oracle import check, parse, rand, refused


@pytest.mark.parametrize("shape, result", [("1,8,T,3", "1,2,U,6"), ("1,8,3,T", "1,2,6,U")])
@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(shape, result, mode):
    check(
        parse(
            f"""agraph (float[{shape}] x) => (float[{result}] y) {{
        a = Conv<pads=[1,1,1,1]>(x, w, b)
        y = DepthToSpace<blocksize=2, mode="{mode}">(a) }}""",
            w=rand(8, 8, 3, 3),
            b=rand(8),
        ),
        delays={"y": 2},
    )


@pytest.mark.parametrize("shape, result", [("1,2,T,6", "1,8,U,3"), ("1,2,6,T", "1,8,3,U")])
def test_space_to_depth(shape, result):
    check(
        parse(
            f"""agraph (float[{shape}] x) => (float[{result}] y) {{
        a = Conv<pads=[1,1,1,1]>(x, w, b)
        y = SpaceToDepth<blocksize=2>(a) }}""",
            w=rand(2, 2, 3, 3),
            b=rand(2),
        ),
        unit=2,
        delays={"y": 1},
    )


def test_there_and_back_with_a_convolution():
    check(
        parse(
            """agraph (float[1,1,T,4] x) => (float[1,1,U,4] y) {
        d = SpaceToDepth<blocksize=2>(x)
        c = Conv<pads=[1,1,1,1]>(d, w, b)
        y = DepthToSpace<blocksize=2>(c) }""",
            w=rand(4, 4, 3, 3),
            b=rand(4),
        ),
        unit=2,
        delays={"y": 2},
    )


def test_batch():
    check(
        parse("agraph (float[T,8,2,2] x) => (float[T,2,4,4] y) { y = DepthToSpace<blocksize=2>(x) }"),
        axes={"x": 0},
        delays={"y": 0},
    )


@pytest.mark.parametrize("node", ["DepthToSpace", "SpaceToDepth"])
def test_channels_are_refused(node):
    refused(
        parse(f"agraph (float[1,T,4,4] x) => (float[1,U,V,W] y) {{ y = {node}<blocksize=2>(x) }}"),
        "along the channels",
        axes={"x": 1},
        op_type=node,
    )
