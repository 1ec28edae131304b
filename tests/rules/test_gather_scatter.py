import numpy as np
import onnx

from testing.oracle import check, parse, rand, refused


def index(*shape, high, seed=0):
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.int64)


def draw(high):
    return lambda rng, shape: rng.integers(0, high, shape).astype(np.int64)


DELAYED = "a = Conv<pads=[1,1]>(x, w, b)\n"
W = dict(w=rand(4, 4, 3), b=rand(4), lo=np.float32(0), hi=np.float32(3))


def delayed_index(body: str, y: str, **weights) -> onnx.ModelProto:
    """Indices 0 to 3 made of a stream behind a SAME convolution."""
    return parse(
        f"agraph (float[1,4,T] x) => ({y}) {{ {DELAYED} m = ReduceMax<axes=[1]>(a)\n n = Clip(m, lo, hi)\n p = "
        f"Cast<to=7>(n)\n{body} }}",
        **W,
        **weights,
    )


def test_gather_elements_beside_the_stream():
    check(
        parse(
            f"""agraph (float[1,4,T] x, int64[1,2,T] i) => (float[1,2,U] y) {{ {DELAYED}
        y = GatherElements<axis=1>(a, i) }}""",
            **W,
        ),
        delays={"y": 1},
        inputs={"i": draw(4)},
    )


def test_gather_elements_by_delayed_indices():
    check(delayed_index("y = GatherElements<axis=1>(x, p)", "float[1,1,U] y"), delays={"y": 1})


def test_gather_elements_from_a_table():
    check(
        delayed_index(
            """t = Transpose<perm=[0,2,1]>(p)
        s = Squeeze(t, axes)
        y = GatherElements<axis=0>(table, s)""",
            "float[U,1] y",
            axes=np.array([0]),
            table=rand(4, 1),
        ),
        delays={"y": 1},
    )


def test_gather_elements_picks_frames():
    refused(
        parse(
            "agraph (float[1,4,T] x) => (float[1,4,2] y) { y = GatherElements<axis=2>(x, i) }", i=index(1, 4, 2, high=9)
        ),
        "picks frames of the stream by index",
    )
    refused(
        parse(
            "agraph (float[1,4,T] x) => (float[1,4,9] y) { y = GatherElements<axis=1>(x, i) }", i=index(1, 4, 9, high=4)
        ),
        "fixed number of frames",
    )


def test_gather_nd_from_a_table():
    check(
        delayed_index(
            """u = Unsqueeze(p, axes)
        y = GatherND(table, u)""",
            "float[1,1,U,3] y",
            axes=np.array([3]),
            table=rand(4, 3),
        ),
        delays={"y": 1},
    )


def test_gather_nd_across_a_stream():
    check(
        parse(
            f"""agraph (float[1,4,T] x) => (float[3,U] y) {{ {DELAYED}
        y = GatherND(a, i) }}""",
            i=np.array([[0, 1], [0, 3], [0, 0]]),
            **W,
        ),
        delays={"y": 1},
    )


def test_gather_nd_with_the_stream_as_batch():
    check(
        parse("""agraph (float[T,4] x, int64[T,2,1] i) => (float[U,2] y) { y = GatherND<batch_dims=1>(x, i) }"""),
        delays={"y": 0},
        inputs={"i": draw(4)},
    )


def test_gather_nd_picks_frames():
    refused(
        parse("agraph (float[T,4] x) => (float[3,4] y) { y = GatherND(x, i) }", i=np.array([[0], [2], [1]])),
        "picks frames of the stream by index",
    )


def test_scatter_elements():
    check(
        parse(
            f"""agraph (float[1,4,T] x, int64[1,2,T] i, float[1,2,T] u) => (float[1,4,U] y) {{ {DELAYED}
        y = ScatterElements<axis=1>(a, i, u) }}""",
            **W,
        ),
        delays={"y": 1},
        inputs={"i": lambda rng, shape: np.broadcast_to([[[1], [3]]], shape).astype(np.int64)},
    )


def test_scatter_elements_writes_frames():
    refused(
        parse(
            "agraph (float[1,4,T] x) => (float[1,4,U] y) { y = ScatterElements<axis=2>(x, i, u) }",
            i=index(1, 4, 2, high=9),
            u=rand(1, 4, 2),
        ),
        "writes to frames of the stream by index",
    )
    refused(
        parse(
            "agraph (float[1,4,T] x) => (float[1,4,U] y) { y = ScatterElements<axis=1>(x, i, u) }",
            i=index(1, 4, 2, high=4),
            u=rand(1, 4, 2),
        ),
        "fixed number of frames",
    )


def test_scatter_nd():
    check(
        parse(
            """agraph (float[4,T] x, float[2,T] u) => (float[4,U] y) {
        e = Unsqueeze(x, axes)
        c = Conv<pads=[1,1]>(e, w, b)
        a = Squeeze(c, axes)
        y = ScatterND(a, i, u) }""",
            i=np.array([[1], [3]]),
            axes=np.array([0]),
            **W,
        ),
        delays={"y": 1},
    )


def test_scatter_nd_writes_frames():
    refused(
        parse(
            "agraph (float[T,4] x, float[2,4] u) => (float[U,4] y) { y = ScatterND(x, i, u) }", i=np.array([[1], [3]])
        ),
        "writes to frames of the stream",
        axes={"x": 0},
    )


def test_scatter_nd_of_fixed_updates():
    refused(
        parse(
            "agraph (float[4,T] x) => (float[4,U] y) { y = ScatterND(x, i, u) }", i=np.array([[1], [3]]), u=rand(2, 9)
        ),
        "fixed number of frames",
    )


def test_table_by_positions_of_a_delayed_stream():
    check(
        parse(
            f"""agraph (float[1,4,T] x) => (float[1,4,U] y) {{ {DELAYED}
        s = Shape(x)
        n = Gather(s, two)
        r = Range(zero, n, one)
        e = Unsqueeze(r, axes)
        g = GatherND(table, e)
        c = Conv<pads=[1,1]>(a, w, b)
        y = Add(c, g) }}""",
            two=np.int64(2),
            zero=np.int64(0),
            one=np.int64(1),
            axes=np.array([1]),
            table=rand(2000),
            **W,
        ),
        delays={"y": 2},
    )
