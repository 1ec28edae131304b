import pytest

from testing.oracle import check, parse, rand, refused

WEIGHTS = {"w": rand(4, 4, 3), "b": rand(4)}
POOLS = ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "GlobalLpPool<p=3>"]


@pytest.mark.parametrize("pool", POOLS)
def test_over_the_stream(pool):
    name, _, attrs = pool.partition("<")
    check(
        parse(
            f"""agraph (float[1,4,T] x) => (float[1,4,1] y) {{ a = Conv<pads=[1,1]>(x, w, b)
        y = {name}{"<" + attrs if attrs else ""}(a) }}""",
            **WEIGHTS,
        )
    )


@pytest.mark.parametrize("pool", ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
def test_two_spatial_axes_and_a_batch(pool):
    spec = check(parse(f"agraph (float[N,4,T,5] x) => (float[N,4,1,1] y) {{ y = {pool}(x) }}"), axes={"x": 2}).spec
    assert spec["states"][-1]["shape"] == ["N", 4, 1, 1]


@pytest.mark.parametrize("pool", ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
def test_time_is_the_batch(pool):
    check(
        parse(
            f"agraph (float[T,4,6] x) => (float[T,4,1] y) {{ a = Conv<pads=[1,1]>(x, w, b)\n y = {pool}(a) }}",
            **WEIGHTS,
        ),
        delays={"y": 0},
    )


def test_squeeze_and_excite_is_refused():
    refused(
        parse("""agraph (float[1,4,T] x) => (float[1,4,T] y) { m = GlobalAveragePool(x)
        s = Sigmoid(m)
        y = Mul(x, s) }"""),
        "it brings a value over the whole stream back to the frames",
        op_type="Mul",
    )
