"""One analysis serves every pulse: what it gives is what a conversion of its own would give, and the model is walked
once.
"""

from __future__ import annotations

import json

import pytest

from pulsify_onnx import CannotStream, PulsedModel, PulseDoesNotFit, UsageError, analyze, inspect, pulsify
from pulsify_onnx.analysis.walker import Walker
from testing import ROOT
from testing.oracle import parse, rand

FIXTURES = ROOT / "fixtures"
MODELS = ("same_gru.onnx", "same_stack.onnx", "wavenet.onnx", "causal_net.onnx", "fixed/clip_64.onnx")
MIRRORED = """<ir_version: 8, opset_import: ["": 17]> agraph (float[1,4,T] x) => (float[1,4,U] y) <int64[6] p = {0, 0, 3, 0, 0, 0}> {
    q = Pad<mode="reflect">(x, p)
    y = Conv(q, w, b) }"""
STRIDED = "agraph (float[1,4,T] x) => (float[1,4,U] y) { y = Conv<pads=[1,1], strides=[2]>(x, w, b) }"
WEIGHTS = {"w": rand(4, 4, 3), "b": rand(4)}


def written(made: PulsedModel) -> tuple[bytes, str]:
    """The bytes of a model and of its sidecar."""
    return made.proto().SerializeToString(deterministic=True), json.dumps(made.spec)


@pytest.fixture
def walks(monkeypatch) -> list[Walker]:
    """Every walk of a model from here on."""
    found: list[Walker] = []
    plan = Walker.plan

    def counted(walker, *arguments):
        found.append(walker)
        return plan(walker, *arguments)

    monkeypatch.setattr(Walker, "plan", counted)
    return found


@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_an_analysis_gives_what_a_conversion_gives(name, end, walks):
    found = analyze(FIXTURES / name, end_of_stream=end)
    analysed = len(walks)
    made = {pulse: written(found.pulsed(pulse)) for pulse in (16, 4, None, 16)}
    assert len(walks) == analysed
    for pulse, both in made.items():
        assert both == written(pulsify(FIXTURES / name, pulse=pulse, end_of_stream=end))


def test_the_walker_runs_once(walks):
    found = analyze(FIXTURES / "same_gru.onnx", end_of_stream=True)
    for pulse in (16, 4):
        found.pulsed(pulse)
        assert found.at(pulse).timing.step == pulse
    assert not found.blockers and len(walks) == 1


@pytest.mark.parametrize("end", [False, True])
def test_inspect_walks_once(end, walks):
    inspect(FIXTURES / "same_gru.onnx", end_of_stream=end, states={})
    walked = [w for w in walks if not w.options.states]
    assert len(walked) == 1


def test_delays_are_those_of_the_pulse():
    model = parse(MIRRORED, **WEIGHTS)
    found = analyze(model)
    delays = {pulse: int(found.at(pulse).facts["y"].delay) for pulse in (1, 2, 4, 8)}
    assert delays == {pulse: pulsify(model, pulse=pulse).spec["outputs"][0]["delay"] for pulse in delays}
    assert delays[1] > delays[8]
    assert int(found.at().facts["y"].delay) == delays[1]


def test_pulses_that_do_not_fit():
    found = analyze(parse(STRIDED, **WEIGHTS))
    assert found.pulse_multiple == 2 and found.at(4).timing.step == 4
    for use in (found.at, found.pulsed):
        with pytest.raises(PulseDoesNotFit) as problem:
            use(3)
        assert problem.value.smallest == 2


def test_no_pulse_is_none():
    found = analyze(parse(STRIDED, **WEIGHTS))
    for pulse in (0, -2):
        for use in (found.at, found.pulsed):
            with pytest.raises(UsageError, match="a pulse has one frame at least"):
                use(pulse)


def test_what_blocks_comes_first():
    model = parse(
        "agraph (float[1,4,T] x) => (float[1,4,U] y) { a = Softmax<axis=2>(x)  y = Conv<pads=[1,1], "
        "strides=[2]>(a, w, b) }",
        **WEIGHTS,
    )
    found = analyze(model)
    assert [b.op_type for b in found.blockers] == [b.op_type for b in found.at(3).blockers] == ["Softmax"]
    with pytest.raises(CannotStream):
        found.pulsed(3)


def test_a_batch_is_that_of_the_conversion():
    found = analyze(FIXTURES / "same_stack.onnx")
    for batch in (None, 1, 3, "dynamic"):
        assert written(found.pulsed(4, batch)) == written(pulsify(FIXTURES / "same_stack.onnx", pulse=4, batch=batch))


def test_an_analysis_takes_no_pulse():
    with pytest.raises(TypeError, match="one analysis is that of every pulse"):
        analyze(FIXTURES / "same_stack.onnx", pulse=4)
