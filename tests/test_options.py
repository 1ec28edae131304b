"""The options of a conversion: one object for every way to ask for one."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from pulsify_onnx import ConvertOptions, UsageError, analyze, inspect, pulsify
from testing.oracle import parse, rand

MODEL = parse(
    "agraph (float[1,4,T] x) => (float[1,4,U] y) { y = Conv<pads=[1,1]>(x, w, b) }", w=rand(4, 4, 3), b=rand(4)
)


def test_keywords_are_the_object_spelled_out():
    options = ConvertOptions(pulse=4, axes={"x": 2}, end_of_stream=True)
    assert pulsify(MODEL, options).spec == pulsify(MODEL, pulse=4, axes={"x": "T"}, end_of_stream=True).spec
    assert inspect(MODEL, options).document == inspect(MODEL, pulse=4, end_of_stream=True).document
    assert analyze(MODEL, options).at(4).timing == analyze(MODEL, end_of_stream=True).at(4).timing


def test_keywords_beside_an_object_change_it():
    options = ConvertOptions(pulse=4)
    assert pulsify(MODEL, options, pulse=8).spec["pulse"] == 8 and options.pulse == 4


def test_pulses_are_never_taken_for_granted():
    with pytest.raises(TypeError, match="needs a pulse"):
        pulsify(MODEL)
    assert pulsify(MODEL, pulse=None).spec["pulse"] is None


def test_unknown_keywords_are_errors():
    for function in (inspect, pulsify):
        with pytest.raises(TypeError, match="puls"):
            function(MODEL, pulse=4, pulses=4)
    with pytest.raises(TypeError, match="pulses"):
        analyze(MODEL, pulses=4)


def test_the_object_is_the_caller_s_no_more():
    axes = {"x": 2}
    options = ConvertOptions(axes=axes, states=None)
    axes["x"] = 1
    assert options.axes == {"x": 2} and options.states == {}
    with pytest.raises(FrozenInstanceError):
        options.pulse = 3


@pytest.mark.parametrize(
    "given, message",
    [
        ({"pulse": 0}, "--pulse 0: a pulse has one frame at least"),
        ({"states": {"a": "y", "b": "y"}}, "--state: an output feeds one input only"),
        ({"head": "last"}, "--head last: write it as window"),
        ({"head": "window=0"}, "--head window=0: write it as window"),
        ({"head": "window", "end_of_stream": True}, "does not go together with --end-of-stream: a window slides on"),
        ({"head": "window", "batch": 2, "readings": {"a": "fill"}}, "does not go together with --batch, --reading$"),
    ],
)
def test_what_does_not_go_together(given, message):
    with pytest.raises(UsageError, match=message):
        ConvertOptions(**given)


def test_frames_of_a_window():
    assert (
        ConvertOptions(head="window=32").window == 32
        and ConvertOptions(head="window").window is None
        and ConvertOptions().window is None
    )


@pytest.mark.parametrize("given", [{"batch": 2}, {"head": "window"}])
def test_a_plan_is_that_of_one_stream(given):
    with pytest.raises(UsageError, match="a plan is that of one stream"):
        analyze(MODEL, **given)
