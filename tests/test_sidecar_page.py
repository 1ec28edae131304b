"""The page about the sidecar is that of its dataclasses, and has every key that is written, and no other one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

import numpy as np

from pulsify_onnx import pulsify
from pulsify_onnx.report import sidecar_page
from pulsify_onnx.runtime.sidecar import Sidecar
from testing import ROOT
from testing.oracle import parse, rand
from testing.twins import static

PAGE = (ROOT / "docs" / "sidecar.md").read_text(encoding="utf-8")
GRU = """agraph (float[T,B,3] x, float[1,B,4] h0) => (float[T,1,B,4] y, float[1,B,4] h1) {
    y, h1 = GRU<hidden_size=4, linear_before_reset=1>(x, w, r, b, , h0) }"""

BY_NAME = {"fixed_length.length", "fixed_length.readings"}
"""Keys whose value has names of the model for keys."""


def documented() -> set[str]:
    """Keys in the tables."""
    return {
        key
        for line in PAGE.splitlines()
        if line.startswith("| `")
        for key in re.findall(r"`([^`]+)`", line.split("|")[1])
    }


def keys(document: object, path: str = "") -> Iterator[str]:
    """Paths of all values in a document; entries of lists have one."""
    if isinstance(document, Mapping) and path not in BY_NAME:
        for key, value in document.items():
            yield from keys(value, f"{path}.{key}" if path else key)
    elif isinstance(document, list) and any(isinstance(entry, Mapping) for entry in document):
        yield path
        for entry in document:
            yield from keys(entry, f"{path}[]")
    else:
        yield path


@lru_cache
def documents() -> tuple[Mapping[str, object], ...]:
    """Sidecars of models of every kind."""
    fixtures = ROOT / "fixtures"
    rows = parse(
        "agraph (float[B,4,T] x) => (float[B,4,T] y) {\n m = ReduceMean<axes=[0], keepdims=1>(x)\n y = Sub(x, m) }"
    )
    running = parse(
        "agraph (float[1,4,T] x, float[1,4,1] g) => (float[1,4,1] y, float[1,4,1] z) {\n s = Add(x, g)\n y = "
        "ReduceMean<axes=[2]>(s)\n z = ReduceMax<axes=[2]>(s) }"
    )
    past = parse(
        """agraph (float[1,T,4] x) => (float[1,T,4] y) {
        k = Transpose<perm=[0,2,1]>(x)  s = MatMul(x, k)  shape = Shape(x)  n = Gather<axis=0>(shape, one)  r = Range(zero, n, one)
        q = Unsqueeze(r, axis1)  d = Sub(r, q)  late = Greater(d, zero)  m = Where(late, low, s)  w = Softmax<axis=-1>(m)  y = MatMul(w, x) }""",
        one=np.int64(1),
        zero=np.int64(0),
        axis1=np.asarray([1]),
        low=np.float32(-1e9),
    )
    resized = parse(
        """agraph (float[1,4,"2*k"] x) => (float[1,4,"2*k"] y) {
        h = MaxPool<kernel_shape=[3], strides=[2], pads=[1, 1]>(x)  shape = Shape(x)
        y = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(h, , , shape) }"""
    )
    pooled = static(
        parse(
            """agraph (float[1, 4, T] x) => (float[1, 4, M] y) {
        h = Mul(x, k) p = AveragePool<kernel_shape=[8], strides=[8]>(h) y = Relu(p) }""",
            k=np.float32(1 / 64),
        ),
        64,
    )
    made = (
        pulsify(fixtures / "same_gru.onnx", pulse=4, end_of_stream=True),
        pulsify(fixtures / "same_stack.onnx", pulse=None, batch="dynamic"),
        pulsify(fixtures / "wavenet.onnx", pulse=1, allow_advance=True),
        pulsify(fixtures / "fixed" / "clip_64.onnx", pulse=4),
        pulsify(fixtures / "clips" / "keyword_40.onnx", pulse=10, head="window"),
        pulsify(pooled, pulse=8, axes={"x": 2}, readings={"h": "number"}),
        pulsify(parse(GRU, w=rand(1, 12, 3), r=rand(1, 12, 4), b=rand(1, 24)), pulse=4, states={"h0": "h1"}),
        pulsify(rows, pulse=4, axes={"x": 2}),
        pulsify(resized, pulse=4),
        pulsify(running, pulse=4, end_of_stream=True),
        pulsify(past, pulse=4, left_context=3),
        pulsify(
            parse("agraph (float[1,T,4] x) => (float[1,T,4] y) {\n y = CumSum(x, axis) }", axis=np.int64(1)), pulse=2
        ),
    )
    return tuple(m.spec for m in made)


def test_every_key_is_documented_and_every_documented_key_is_written():
    written = {key for document in documents() for key in keys(document)}
    branches = {key for key in documented() if any(other.startswith(key + "[]") for other in written)}
    assert written - documented() == set()
    assert documented() - branches - written == set()


def test_the_page_is_what_the_dataclasses_say():
    assert sidecar_page.written(PAGE) == PAGE
    assert all(row.says for _, kind, path in sidecar_page.SECTIONS for row in sidecar_page.rows(kind, path))
    assert all(row.says for row in sidecar_page.rows(Sidecar))


def test_roles_are_documented():
    line = next(line for line in PAGE.splitlines() if line.startswith("| `states[].role`"))
    roles = {state["role"] for document in documents() for state in document["states"]}
    assert len(roles) > 7 and roles <= set(re.findall(r"`(\w+)`", line))
