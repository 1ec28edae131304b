"""What the random networks are drawn and compared by: every family runs as a batch, and streams that are wrong are
seen.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from pulsify_onnx.api import pulsify
from testing.corners import FAMILIES, KINDS, OLD, varied
from testing.networks import network
from testing.oracle import parse, rand, session
from testing.streams import Streams, short_lengths


def runs(model: onnx.ModelProto, frames: int) -> None:
    """The batch model takes so many frames."""
    sizes = {"T": frames, "N": 3}
    feeds = {
        v.name: np.ones([d.dim_value or sizes[d.dim_param] for d in v.type.tensor_type.shape.dim], np.float32)
        for v in model.graph.input
    }
    session(model.SerializeToString(), plain=True).run(None, feeds)


@pytest.mark.parametrize("opset", sorted({*OLD, 13, 18, 21}))
def test_networks_of_an_opset_run(opset: int) -> None:
    """What is an attribute there is one."""
    for seed in range(12):
        net = network(seed, 12, opsets=(opset,))
        onnx.checker.check_model(net.model)
        assert net.model.opset_import[0].version == opset
        runs(net.model, net.lengths[0])


@pytest.mark.parametrize("kind", KINDS)
def test_networks_of_a_kind_run(kind: str) -> None:
    """At their shortest and longest; the kind is there."""
    found = []
    for seed in range(12):
        net, family = varied(seed, kind=kind)
        found += [family, *net.kinds]
        runs(net.model, net.lengths[0])
        runs(net.model, net.lengths[-1])
    assert kind in found


def test_a_seed_is_one_network() -> None:
    """Whatever the family; families are drawn as often as they say, more or less."""
    families = []
    for seed in range(40):
        net, family = varied(seed, 5)
        assert varied(seed, 5)[0].model.SerializeToString() == net.model.SerializeToString()
        families.append(family)
    assert set(families) == set(FAMILIES)


AFTER = "agraph (float[N,2,T] x) => (float[N,2,T] y) {{ {} }}"
WEIGHTS = {"w": rand(2, 2, 3), "five": np.int64(5), "two": np.int64(2), "zero": np.array([0])}
CONV = "y = Conv<pads=[1,1]>(x, w)"
SHORT = "s = Shape(x)  n = Gather<axis=0>(s, two)  g = Greater(n, five)  c = Conv<pads=[1,1]>(x, w)  y = Where(g, c, x)"
MIXED = "c = Conv<pads=[1,1]>(x, w)  m = ReduceMean<axes=[0]>(c)  d = Sub(c, m)  k = Mul(d, d)  y = Sub(c, k)"


def streams(body: str, batch: str, pulse: int | None) -> Streams:
    """One network's stream beside another's batch run."""
    return Streams(
        pulsify(parse(AFTER.format(body), **WEIGHTS), pulse=pulse, end_of_stream=True),
        parse(AFTER.format(batch), **WEIGHTS),
    )


@pytest.mark.parametrize("pulse", [1, 4, None])
def test_short_streams_are_seen(pulse: int | None) -> None:
    """A network that is another one for short streams only."""
    same, other = streams(CONV, CONV, pulse), streams(CONV, SHORT, pulse)
    rng = np.random.default_rng(0)
    assert other.compare([9], rng) == same.compare([9], rng) == 9 and same.compare([1, 9, 4], rng) == 14
    with pytest.raises(AssertionError, match="y of 3 frames"):
        other.compare([3], rng)
    with pytest.raises(AssertionError, match="y of 2 frames, lane 1"):
        other.compare([9, 2], rng)


def test_lanes_that_are_mixed_are_seen() -> None:
    """Rows on their own are equal, together they are not."""
    mixed, rng = streams(CONV, MIXED, 4), np.random.default_rng(0)
    assert mixed.compare([9, 5], rng) == 14
    with pytest.raises(AssertionError, match="rows together"):
        mixed.together(9, 3, rng)


@pytest.mark.parametrize("leak", [True, False])
def test_what_is_past_the_end_is_seen(leak: bool) -> None:
    """A lane's fill in another's frames."""
    good = pulsify(parse(AFTER.format(CONV), **WEIGHTS), pulse=4, end_of_stream=True)
    broken = good.proto()
    if leak:
        broken.graph.node.extend(
            [
                onnx.helper.make_node("ReduceSum", ["x"], ["all"]),
                onnx.helper.make_node("Mul", ["all", "nought"], ["none"]),
            ]
        )
        broken.graph.node.append(onnx.helper.make_node("Add", ["y_kept", "none"], ["y"]))
        broken.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0), "nought"))
        for node in list(broken.graph.node)[:-3]:
            node.output[:] = ["y_kept" if name == "y" else name for name in node.output]
            node.input[:] = ["y_kept" if name == "y" else name for name in node.input]
    lanes = Streams(_pulsed(good.spec, broken), parse(AFTER.format(CONV), **WEIGHTS))
    rng = np.random.default_rng(0)
    if leak:
        with pytest.raises(AssertionError, match="y of 9 frames"):
            lanes.compare([9, 5], rng)
    else:
        assert lanes.compare([9, 5], rng) == 14


def test_frames_before_the_first_are_numbers() -> None:
    """A stream whose frames outside the promise are none is seen, though those within are right."""
    batch = parse(
        "agraph (float[1,1,T] x) => (float[1,1,U] y) { y = Slice(x, a, b, c) }",
        a=np.array([1]),
        b=np.array([2**31 - 1]),
        c=np.array([2]),
    )
    for body, seen in (
        ("f = Equal(past, nil)  v = Where(f, inf, one)  y = Mul(x, v)", True),
        ("y = Identity(x)", False),
    ):
        step = parse(
            "agraph (float[1,1,1] x, float[1,1] past) => (float[1,1,1] y, float[1,1] present) { present = "
            f"Identity(ones) {body} }}",
            nil=np.zeros((1, 1), np.float32),
            ones=np.ones((1, 1), np.float32),
            one=np.float32(1),
            inf=np.float32(np.inf),
        )
        spec = pulsify(batch, pulse=1).spec
        spec["states"] = [{"input": "past", "output": "present", "shape": [1, 1], "dtype": "float32"}]
        made, rng = Streams(_pulsed(spec, step), batch), np.random.default_rng(0)
        if seen:
            with pytest.raises(AssertionError, match="no number"):
                made.compare([6], rng)
        else:
            assert made.compare([6], rng) == 5


def test_lengths_from_the_least_on() -> None:
    """All where they are few, the shortest and others where they are many."""
    spec: dict[str, Any] = {
        "pulse": 2,
        "pulse_multiple": 1,
        "least_frames": 3,
        "inputs": [{"kind": "stream", "rate": [1, 1]}],
        "outputs": [{"kind": "stream", "delay": 2, "rate": [1, 2]}],
    }
    rng = np.random.default_rng(0)
    assert short_lengths(spec, 1, rng, most=8) == [3, 4, 5, 6, 7, 8, 9, 10] and short_lengths(spec, 6, rng) == [6, 12]
    some = short_lengths(spec | {"pulse": 40}, 1, rng)
    assert some[:2] == [3, 4] and len(some) == 7 and max(some) <= 124 and some == sorted(set(some))


def _pulsed(spec: dict[str, Any], model: onnx.ModelProto) -> Any:
    return SimpleNamespace(spec=spec, proto=lambda: model)
