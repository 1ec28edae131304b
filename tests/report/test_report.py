"""Where a delay comes from, and the table that says so."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pulsify_onnx import inspect, pulsify, verify
from pulsify_onnx.report.tables import table
from testing.oracle import parse, rand

W = {"w": rand(4, 4, 3), "b": rand(4)}


def path(text: str, output: str = "y", pulse: int | None = None, **weights):
    document = inspect(parse(text, **(weights or W)), pulse=pulse).document
    found = next(o for o in document["outputs"] if o["name"] == output)
    rate = found["rate"][0] / found["rate"][1]
    assert sum(link["base_frames"] for link in found["critical_path"]) == pytest.approx(found["delay"] / rate)
    return [(link["node"], link["base_frames"]) for link in found["critical_path"]], document


def test_a_chain_of_convolutions():
    links, document = path("""agraph (float[1,4,T] x) => (float[1,4,U] y) {
        a = Conv<pads=[1,1]>(x, w, b)
        r = Relu(a)
        y = Conv<pads=[2,2], dilations=[2]>(r, w, b) }""")
    assert links == [("a", 1), ("y", 2)]
    assert document["outputs"][0]["lookahead"] == 3 and document["outputs"][0]["receptive_field"] == 7


def test_the_slower_branch_of_a_join():
    links, _ = path("""agraph (float[1,4,T] x) => (float[1,4,U] y) {
        a = Conv<pads=[1,1]>(x, w, b)
        c = Conv<pads=[4,4], dilations=[4]>(x, w, b)
        y = Add(a, c) }""")
    assert links == [("c", 4)]


def test_padding_takes_delay_back():
    links, _ = (
        path("""<ir_version: 8, opset_import: ["": 17]> agraph (float[1,4,T] x) => (float[1,4,U] y) <int64[6] p = {0, 0, 1, 0, 0, 1}> {
        q = Pad(x, p)
        y = Conv(q, w, b) }""")
    )
    assert links == [("q", -1), ("y", 2)]


def test_rates_are_counted_in_base_frames():
    links, _ = path("""agraph (float[1,4,T] x) => (float[1,4,U] y) {
        s = Conv<strides=[2], pads=[1,1]>(x, w, b)
        c = Conv<pads=[1,1]>(s, w, b)
        y = ConvTranspose<strides=[2], pads=[1,1], output_padding=[1]>(c, w, b) }""")
    assert dict(links)["c"] == 2


def test_the_table_fits_a_terminal():
    report = inspect(
        parse(
            """agraph (float[1,4,T] x) => (float[1,4,U] y, float[1,4] m) {
        averyveryveryveryveryveryveryveryveryveryveryveryveryveryveryveryveryverylongname = Conv<pads=[1,1]>(x, w, b)
        y = Conv<pads=[1,1]>(averyveryveryveryveryveryveryveryveryveryveryveryveryveryveryveryveryverylongname, w, b)
        m = ReduceMax<axes=[2], keepdims=0>(x) }""",
            **W,
        )
    )
    document = report.document
    text = table(report.found, 100)
    assert max(map(len, text.splitlines())) <= 100
    for part in (
        "2 frames = 20 ms",
        "+1    1    10 ms  Conv",
        "all so far",
        "pulse 1, a multiple of 1",
        f"{document['state_bytes']} bytes",
    ):
        assert part in text, part


@pytest.mark.parametrize(
    "nodes, field",
    [
        ("y = ConvTranspose<strides=[6]>(x, long, b)", 3),
        ("y = ConvTranspose<strides=[6], pads=[0,8]>(x, long, b)", 3),
        ('y = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(x, , six)', 1),
        (
            'u = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(x, , '
            "six)\n y = Conv<pads=[1,1]>(u, w, b)",
            2,
        ),
        ("d = Conv<strides=[2], pads=[1,0]>(x, w, b)\n y = ConvTranspose<strides=[2]>(d, w, b)", 5),
    ],
)
def test_the_receptive_field_where_frames_lie_between_base_frames(nodes, field):
    model = parse(
        "agraph (float[1,4,T] x) => (float[1,4,U] y) { " + nodes + " }",
        **W,
        long=rand(4, 4, 14),
        six=np.asarray([1, 1, 6], np.float32),
    )
    pulsed = pulsify(model, pulse=4)
    assert pulsed.spec["outputs"][0]["receptive_field"] == field
    assert verify(model, pulsed, measure=True).ok
    pulsed.spec["outputs"][0]["receptive_field"] = field - 1
    pulsed.model.metadata_props["pulsify.spec"] = json.dumps(pulsed.spec)
    assert "receptive field" in verify(model, pulsed, measure=True).message
