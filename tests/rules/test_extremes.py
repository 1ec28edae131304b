import numpy as np
import pytest

from testing.oracle import check, parse, rand, refused

WEIGHTS = {"w": rand(4, 4, 3), "b": rand(4)}


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("attrs", ["", ", keepdims=0", ", select_last_index=1"])
def test_index_of_the_best_frame(op, attrs):
    check(
        parse(
            f"agraph (float[1,4,T] x) => (int64 y) {{ a = Conv<pads=[1,1]>(x, w, b)\n y = {op}<axis=2{attrs}>(a) }}",
            **WEIGHTS,
        )
    )


@pytest.mark.parametrize("last", [0, 1])
def test_ties(last):
    check(
        parse(f"""agraph (int32[1,4,T] x) => (int64[1,4,1] y, int64[1,4,1] z) {{ y = ArgMax<axis=2, select_last_index={last}>(x)
        z = ArgMin<axis=2, select_last_index={last}>(x) }}""")
    )


def test_other_axis():
    check(
        parse(
            "agraph (float[1,4,T] x) => (int64[1,T] y) { a = Conv<pads=[1,1]>(x, w, b)\n y = ArgMax<axis=1, "
            "keepdims=0>(a) }",
            **WEIGHTS,
        ),
        delays={"y": 1},
    )


@pytest.mark.parametrize("largest", [0, 1])
def test_best_frames(largest):
    check(
        parse(
            f"""agraph (float[1,4,T] x) => (float[1,4,3] y, int64[1,4,3] z) {{ a = Conv<pads=[1,1]>(x, w, b)
        y, z = TopK<axis=2, largest={largest}>(a, k) }}""",
            k=np.asarray([3]),
            **WEIGHTS,
        )
    )


@pytest.mark.parametrize(
    "result", ["y, z = TopK<axis=2, largest=1>(a, k)", "y = ReduceMax<axes=[2]>(a)", "y = ReduceLogSumExp<axes=[2]>(a)"]
)
def test_frames_that_are_infinite_themselves(result):
    """The least of all values is told apart from no value at all."""

    def low(rng, shape):
        return np.where(rng.random(shape) < 0.9, -np.inf, rng.standard_normal(shape)).astype(np.float32)

    check(
        parse(
            f"""agraph (float[1,4,T] x) => (float[1,4,N] y) {{ a = Slice(x, one, many, two)
        {result} }}""",
            k=np.asarray([9]),
            one=np.int64([2]),
            many=np.int64([2**31]),
            two=np.int64([2]),
        ),
        inputs={"x": low},
        pulses=(1, 3, 7),
    )


def test_best_frames_with_ties_and_a_batch():
    spec = check(
        parse(
            "agraph (int32[T,N,4] x) => (int32[3,N,4] y, int64[3,N,4] z) { y, z = TopK<axis=0>(x, k) }",
            k=np.asarray([3]),
        ),
        axes={"x": 0},
    ).spec
    assert {tuple(s["shape"]) for s in spec["states"] if s["role"] in ("best", "index")} == {("N", 3, 4)}


def test_best_channels():
    check(
        parse(
            """agraph (float[1,4,T] x) => (float[1,2,T] y, int64[1,2,T] z) { a = Conv<pads=[1,1]>(x, w, b)
        y, z = TopK<axis=1>(a, k) }""",
            k=np.asarray([2]),
            **WEIGHTS,
        ),
        delays={"y": 1, "z": 1},
    )


def test_as_many_frames_as_half_the_stream_is_refused():
    refused(
        parse(
            """agraph (float[1,4,T] x) => (float[1,4,U] y, int64[1,4,U] z) { n = Shape<start=2>(x)
        h = Div(n, two)
        y, z = TopK<axis=2>(x, h) }""",
            two=np.asarray([2]),
        ),
        "the number of frames it picks is computed at run time",
        op_type="TopK",
    )


@pytest.mark.parametrize("axis", (1, 2))
def test_values_alone(axis: int):
    """An output that the schema says is always there, and nothing reads."""
    check(
        parse(
            f"""agraph (float[1,4,T] x) => (float[1,M,N] y) {{ a = Conv<pads=[1,1]>(x, w, b)
        y, z = TopK<axis={axis}>(a, k) }}""",
            k=np.asarray([2]),
            **WEIGHTS,
        ),
        pulses=(1, 3),
    )
