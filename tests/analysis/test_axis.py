"""Which axis of which input is the stream."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from pulsify_onnx import inspect, pulsify
from pulsify_onnx.errors import AmbiguousAxis, CannotStream
from testing.oracle import check, parse, rand, refused


def test_blockers_of_the_reading_that_gets_furthest():
    """With a batch of no known name, what blocks the batch axis is of no interest."""
    model = parse(
        """agraph (float[s0,2,s1] x) => (float[s0,2,s1] y) { a = Conv<pads=[1,1]>(x, w)
        m = ReduceMean<axes=[2]>(a)
        y = Mul(a, m) }""",
        w=rand(2, 2, 3),
    )
    refused(model, "brings a value over the whole stream back", op_type="Mul")


CONVOLVED = "t = Transpose<perm=[0,2,1]>(x)\n a = Conv<pads=[1,1]>(t, w)\n y = Softmax<axis=2>(a)"


def _ambiguous(model: onnx.ModelProto, *words: str) -> tuple[str, ...]:
    with pytest.raises(AmbiguousAxis) as caught:
        pulsify(model, pulse=2)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    return caught.value.options


def test_a_batch_is_not_taken_for_time_where_time_is_refused():
    """Whatever it is called, and whether time is of any length or of one."""
    model = parse(
        """agraph (float[A,S,4] x) => (float[S,1,A,3] y) { t = Transpose<perm=[1,0,2]>(x)
        y = GRU<hidden_size=3, direction="reverse">(t, w, r) }""",
        w=rand(1, 9, 4),
        r=rand(1, 9, 3),
    )
    options = _ambiguous(model, "frame by frame", "may be a batch", "--axis x=1: GRU")
    assert options == ("--axis x=0", "--axis x=1")
    model = parse(f"agraph (float[N,12,4] x) => (float[N,4,12] y) {{ {CONVOLVED} }}", w=rand(4, 4, 3))
    options = _ambiguous(model, "frame by frame", "may be a batch", "--axis x=1: Softmax")
    assert options[:2] == ("--axis x=0", "--axis x=1")
    check(model, axes={"x": 0}, delays={"y": 0}, pulses=(2,))


def test_channels_are_not_taken_for_time_where_time_is_refused():
    """A forecast of every channel on its own, from all frames of the export."""
    model = parse(
        """agraph (float[1,12,3] x) => (float[3,2,12] y) { last = Slice(x, minus, big, one)
        d = Sub(x, last)
        t = Transpose<perm=[0,2,1]>(d)
        r = Reshape(t, apart)
        y = Conv<pads=[1,1]>(r, w) }""",
        minus=np.int64([-1]),
        big=np.int64([2**62]),
        one=np.int64([1]),
        apart=np.int64([3, 1, 12]),
        w=rand(2, 1, 3),
    )
    options = _ambiguous(model, "may be a batch or channels", '--axis x=1: Sub "d"')
    assert options == ("--axis x=2", "--axis x=1")
    refused(model, "whole stream", axes={"x": 1})


def test_frames_on_their_own_are_time_where_nothing_reads_windows():
    model = parse("agraph (float[1,12,3] x) => (float[1,12,2] y) { y = MatMul(x, w) }", w=rand(3, 2))
    assert pulsify(model, pulse=2).spec["inputs"][0]["axis"] == 1


def test_a_refusal_tells_the_axis_that_was_tried():
    model = parse("agraph (float[1,4,T] x) => (float[1,4,T] y) { y = Softmax<axis=2>(x) }")
    with pytest.raises(CannotStream) as caught:
        pulsify(model, pulse=2)
    assert caught.value.axes == {"x": 2} and "axis 2 of x" in caught.value.read
    assert inspect(model).axes == {"x": 2}
    model = parse("agraph (float[1,4,12] x) => (float[1,4,12] y) { y = Softmax<axis=2>(x) }")
    with pytest.raises(CannotStream) as caught:
        pulsify(model, pulse=2, axes={"x": 2})
    assert caught.value.axes == {"x": 2}
