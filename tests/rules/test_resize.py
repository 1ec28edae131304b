import numpy as np
import pytest

from pulsify_onnx.api import pulsify, verify
from testing.oracle import check, parse, rand, refused

W = {"w": rand(3, 3, 3), "b": rand(3)}
NONE = np.zeros(0, np.float32)


def scales(along, *, rank=3, **others):
    out = np.ones(rank, np.float32)
    out[2] = along
    for axis, scale in others.items():
        out[int(axis[1:])] = scale
    return out


def resized(attributes, along, opset=19):
    return parse(
        f"""<ir_version: 8, opset_import: ["": {opset}]>
        agraph (float[1,3,T] x) => (float[1,3,U] y, float[1,3,V] z) {{
        a = Conv<pads=[1,1]>(x, w, b)
        y = Resize<{attributes}>(a, none, scales)
        z = Conv<pads=[1,1]>(y, w, b) }}""",
        **W,
        none=NONE,
        scales=scales(along),
    )


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize(
    "coordinates, nearest, delay",
    [
        ("asymmetric", "floor", 1),
        ("half_pixel", "round_prefer_floor", 1),
        ("pytorch_half_pixel", "round_prefer_ceil", 1),
    ],
)
def test_nearest_up(factor, coordinates, nearest, delay):
    check(
        resized(f'mode="nearest", coordinate_transformation_mode="{coordinates}", nearest_mode="{nearest}"', factor),
        delays={"y": factor * delay, "z": factor * delay + 1},
    )


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_nearest_up_looks_back(factor, stride):
    """The first frame is sampled before the first one, which is the first one itself."""
    model = parse(
        """<ir_version: 8, opset_import: ["": 19]> agraph (float[1,3,T] x) => (float[1,3,U] y) {
        a = Conv<pads=[2,2], strides=[STRIDE]>(x, w5, b)
        y = Resize<mode="nearest", coordinate_transformation_mode="half_pixel", nearest_mode="floor">(a, none, scales) }""".replace(
            "STRIDE", f"{stride}"
        ),
        w5=rand(3, 3, 5),
        b=rand(3),
        none=NONE,
        scales=scales(factor),
    )
    check(model, delays={"y": 2 * factor if stride == 1 else factor}, absorbed=True)


@pytest.mark.parametrize(
    "nearest, factor, delay",
    [("ceil", 2, 3), ("round_prefer_ceil", 2, 3), ("round_prefer_floor", 4, 5), ("round_prefer_ceil", 4, 6)],
)
def test_nearest_up_asymmetric_looks_ahead(nearest, factor, delay):
    check(
        resized(f'mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="{nearest}"', factor),
        delays={"y": delay},
    )


@pytest.mark.parametrize(
    "coordinates, factor, delay",
    [
        ("half_pixel", 2, 3),
        ("half_pixel", 3, 4),
        ("pytorch_half_pixel", 4, 6),
        ("asymmetric", 2, 3),
        ("asymmetric", 3, 5),
        ("half_pixel_symmetric", 2, 3),
    ],
)
def test_linear_up(coordinates, factor, delay):
    check(
        resized(f'mode="linear", coordinate_transformation_mode="{coordinates}"', factor),
        delays={"y": delay, "z": delay + 1},
    )


@pytest.mark.parametrize("along, delay", [(2, 5), (0.5, 2)])
def test_cubic(along, delay):
    check(
        parse(
            """agraph (float[1,1,T,5] x) => (float[1,1,U,5] y) {
        a = Conv<pads=[1,1,1,1]>(x, w, b)
        y = Resize<mode="cubic">(a, none, scales) }""",
            w=rand(1, 1, 3, 3),
            b=rand(1),
            none=NONE,
            scales=scales(along, rank=4),
        ),
        delays={"y": delay if along > 1 else 1},
    )


@pytest.mark.parametrize(
    "attributes, along, delay",
    [
        ('mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"', 1 / 2, 0),
        ('mode="nearest", coordinate_transformation_mode="half_pixel"', 1 / 2, 0),
        ('mode="nearest", coordinate_transformation_mode="half_pixel"', 1 / 3, 0),
        ('mode="linear", coordinate_transformation_mode="half_pixel"', 1 / 2, 1),
        ('mode="linear", coordinate_transformation_mode="half_pixel"', 1 / 3, 0),
        ('mode="linear", coordinate_transformation_mode="half_pixel"', 1 / 4, 0),
        ('mode="linear", coordinate_transformation_mode="asymmetric"', 1 / 4, 0),
    ],
)
def test_down(attributes, along, delay):
    check(resized(attributes, along), delays={"y": delay})


def test_to_a_multiple_of_the_length_and_another_axis():
    check(
        parse(
            """agraph (float[1,2,T,5] x) => (float[1,2,U,7] y) {
        a = Conv<pads=[1,1,1,1]>(x, w, b)
        s = Shape(a)
        d = Mul(s, factors)
        e = Add(d, more)
        y = Resize<mode="linear">(a, none, none, e) }""",
            w=rand(2, 2, 3, 3),
            b=rand(2),
            none=NONE,
            factors=np.array([1, 1, 2, 1]),
            more=np.array([0, 0, 0, 2]),
        ),
        delays={"y": 3},
    )


def test_another_axis_only():
    check(
        parse(
            """agraph (float[1,2,T,6] x) => (float[1,2,T,9] y) {
        a = Conv<pads=[1,1,1,1]>(x, w, b)
        y = Resize<mode="linear", coordinate_transformation_mode="align_corners">(a, none, scales) }""",
            w=rand(2, 2, 3, 3),
            b=rand(2),
            none=NONE,
            scales=scales(1, rank=4, a3=1.5),
        ),
        delays={"y": 1},
    )


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_neighbours_in_time_weigh_nothing_when_another_axis_is_resized(mode):
    check(
        parse(
            f"""agraph (float[1,1,T,6] x) => (float[1,1,T,12] y) {{
        y = Resize<mode="{mode}", coordinate_transformation_mode="half_pixel_symmetric">(x, none, scales) }}""",
            none=NONE,
            scales=scales(1, rank=4, a3=2),
        ),
        length=43,
        delays={"y": 0},
    )


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize(
    "dims, along, factors",
    [
        ("1,1,3,T", 3, {"a2": 2}),
        ("1,2,3,T", 3, {"a1": 2, "a2": 2}),
        ("B,1,3,T", 3, {"a2": 3}),
        ("1,T,3,2", 1, {"a2": 2}),
    ],
)
def test_neighbours_in_time_weigh_nothing_in_a_model_that_is_optimised(mode, dims, along, factors):
    """Where a Transpose before the operator and one after it could be left out, frames would be beside each other
    again.
    """
    model = parse(
        f"""agraph (float[{dims}] x) => (float[A,C,D,E] y) {{
        y = Resize<mode="{mode}", coordinate_transformation_mode="half_pixel">(x, none, scales) }}""",
        none=NONE,
        scales=scales(1, rank=4, **factors),
    )
    for pulse in (1, 4, None):
        pulsed = pulsify(model, pulse=pulse, axes={"x": along}, end_of_stream=True)
        assert pulsed.spec.get("independent_rows", True) and verify(model, pulsed).ok


@pytest.mark.parametrize("batch", ["1", "3", "B"])
@pytest.mark.parametrize("along", [0.5, 2])
def test_a_model_that_is_optimised_still_loads(along, batch):
    model = parse(
        f"""agraph (float[{batch},4,T] x) => (float[U,C,4] y) {{
        u = Unsqueeze(x, one)
        r = Resize<mode="cubic", coordinate_transformation_mode="asymmetric">(u, none, scales)
        q = Squeeze(r, one)
        y = Transpose<perm=[2,0,1]>(q) }}""",
        none=NONE,
        one=np.array([1]),
        scales=scales(1, rank=4, a3=along),
    )
    for pulse in (2, 6, None):
        for end in (False, True):
            assert verify(model, pulsify(model, pulse=pulse, axes={"x": 2}, end_of_stream=end)).ok


ACROSS = (
    ("1,2,T,4", 2, {"a3": 2}),
    ("1,2,4,T", 3, {"a2": 2}),
    ("1,T,2,4", 1, {"a2": 2, "a3": 3}),
    ("2,T", 1, {"a0": 2}),
    ("T,2", 0, {"a1": 2}),
    ("1,2,T", 2, {"a1": 2}),
    ("2,T,3", 1, {"a0": 2, "a2": 2}),
)


@pytest.mark.parametrize(
    "mode, dims, along, factors",
    [(mode, *case) for case in ACROSS for mode in ("linear", "cubic") if mode == "linear" or case[0].count(",") != 2],
)
def test_another_axis_behind_a_cut_and_a_border(mode, dims, along, factors):
    """Every frame is resized on its own, so nothing waits for frames beside it, were they cut off or border."""
    rank = dims.count(",") + 1
    sizes = [1] * rank
    for key, factor in factors.items():
        sizes[int(key[1:])] = factor
    shape = ",".join("T" if k == along else str(int(d) * sizes[k]) for k, d in enumerate(dims.split(",")))
    pads = np.zeros(2 * rank, np.int64)
    pads[along] = 3
    model = parse(
        f"""agraph (float[{dims}] x) => (float[{shape.replace("T", "U")}] y) {{
        c = Slice(x, zero, end, axis)
        p = Pad(c, pads, five)
        y = Resize<mode="{mode}">(p, none, scales) }}""",
        none=NONE,
        scales=np.asarray(sizes, np.float32),
        zero=np.asarray([0]),
        end=np.asarray([-2]),
        axis=np.asarray([along]),
        pads=pads,
        five=np.float32(5),
    )
    check(model, axes={"x": along}, delays={"y": 0}, shortest=3)
    assert pulsify(model, pulse=4, axes={"x": along}, end_of_stream=True).spec["outputs"][0]["delay"] == 0


def test_down_and_another_axis_up():
    check(
        parse(
            """agraph (float[1,2,T,6] x) => (float[1,2,U,12] y) {
        a = Conv<pads=[1,1,1,1]>(x, w, b)
        y = Resize<coordinate_transformation_mode="asymmetric", nearest_mode="floor">(a, none, scales) }""",
            w=rand(2, 2, 3, 3),
            b=rand(2),
            none=NONE,
            scales=scales(0.5, rank=4, a3=2),
        ),
        delays={"y": 0},
    )


def test_axes_attribute():
    check(
        parse(
            """<ir_version: 8, opset_import: ["": 18]>
        agraph (float[1,3,T] x) => (float[1,3,U] y) { y = Resize<mode="linear", axes=[2]>(x, none, scales) }""",
            none=NONE,
            scales=np.array([2], np.float32),
        ),
        delays={"y": 1},
    )


@pytest.mark.parametrize("mode, delay", [("nearest", 2), ("linear", 3)])
def test_old_operators(mode, delay):
    check(
        parse(
            f"""<ir_version: 4, opset_import: ["": 8]>
        agraph (float[1,3,T,2] x) => (float[1,3,U,2] y) {{
        a = Conv<pads=[1,0,1,0]>(x, w, b)
        y = Upsample<mode="{mode}", scales=[1.0, 1.0, 2.0, 1.0]>(a) }}""",
            w=rand(3, 3, 3, 1),
            b=rand(3),
        ),
        delays={"y": delay},
    )
    check(
        parse(
            f"""<ir_version: 5, opset_import: ["": 10]>
        agraph (float[1,3,T,2] x) => (float[1,3,U,2] y) {{
        a = Conv<pads=[1,0,1,0]>(x, w, b)
        y = Resize<mode="{mode}">(a, scales) }}""",
            w=rand(3, 3, 3, 1),
            b=rand(3),
            scales=scales(2, rank=4),
        ),
        delays={"y": delay},
    )


@pytest.mark.parametrize(
    "attributes, along, reason",
    [
        (
            'mode="linear", coordinate_transformation_mode="align_corners"',
            2,
            "stretches the sampling points over the whole stream",
        ),
        ('mode="linear"', 1.5, "no whole factor"),
        (
            'mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"',
            np.nextafter(np.float32(2), np.float32(3)),
            "no whole factor",
        ),
        (
            'mode="linear", coordinate_transformation_mode="pytorch_half_pixel"',
            0.5,
            "samples elsewhere where the result has one frame",
        ),
        ('mode="linear", antialias=1', 2, "antialiasing"),
        ('mode="nearest"', 1 / 41, "is not exact"),
    ],
)
def test_what_depends_on_the_length_is_refused(attributes, along, reason):
    refused(resized(attributes, along), reason, op_type="Resize")


def test_crop_and_resize_is_refused():
    refused(
        parse(
            """agraph (float[1,1,T,6] x) => (float[1,1,T,12] y) {
        y = Resize<coordinate_transformation_mode="tf_crop_and_resize">(x, roi, scales) }""",
            roi=np.array([0, 0, 0, 0, 1, 1, 1, 0.5], np.float32),
            scales=scales(1, rank=4, a3=2),
        ),
        "it crops by regions",
        op_type="Resize",
    )


def test_to_a_fixed_length_is_refused():
    refused(
        parse(
            "agraph (float[1,3,T] x) => (float[1,3,32] y) { y = Resize(x, none, none, sizes) }",
            none=NONE,
            sizes=np.array([1, 3, 32]),
        ),
        "every sampling point depends on the length",
        op_type="Resize",
    )


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize(
    "along, attributes", [(1, ""), (1 / 3, ', coordinate_transformation_mode="half_pixel"'), (2, ""), (0.5, "")]
)
def test_resize_of_another_axis_behind_a_crop_at_the_end(mode, along, attributes):
    """The newest frames are real as long as nobody knows that they are the last ones."""
    across = 1.5 if along == 1 else 1
    check(
        parse(
            f"""agraph (float[1,1,T,4] x) => (float[1,1,U,V] y) {{
        c = Slice(x, zero, end, two)
        y = Resize<mode="{mode}"{attributes}>(c, none, scales) }}""",
            zero=np.array([0]),
            end=np.array([-5]),
            two=np.array([2]),
            none=NONE,
            scales=scales(along, rank=4, a3=across),
        )
    )


def test_resize_of_another_axis_waits_for_nothing_where_nothing_is_cut_off():
    model = parse(
        """agraph (float[1,1,T,4] x) => (float[1,1,U,6] y) { y = Resize<mode="linear">(x, none, scales) }""",
        none=NONE,
        scales=scales(1, rank=4, a3=1.5),
    )
    assert pulsify(model, pulse=3, end_of_stream=True).spec["outputs"][0]["delay"] == 0


@pytest.mark.parametrize(
    "op, opset, mode",
    [("Resize", 17, "linear"), ("Resize", 17, "nearest"), ("Upsample", 9, "linear"), ("Upsample", 9, "nearest")],
)
@pytest.mark.parametrize("scale", (5 / 3, 1.3))
def test_a_size_that_is_rounded_in_two_ways(op, opset, mode, scale):
    """Nine times five thirds is 15 in single precision, and less in double."""
    inputs = "x, scales" if op == "Upsample" else "x, none, scales"
    weights = {"scales": scales(1, rank=4, a3=scale)} | ({} if op == "Upsample" else {"none": NONE})
    check(
        parse(
            f"""<ir_version: 8, opset_import: ["": {opset}]> agraph (float[1,1,T,9] x) => (float[1,1,U,V] y) {{
        a = {op}<mode="{mode}">({inputs})
        y = AveragePool<kernel_shape=[2,1]>(a) }}""",
            **weights,
        ),
        pulses=(1, 4),
        length=20,
    )
