"""What rules declare of their operators, and who asks for it."""

from __future__ import annotations

import re

import onnx_ir as ir
import pytest

from pulsify_onnx.rules import RULES
from pulsify_onnx.rules.kit import traits
from pulsify_onnx.rules.kit.registry import CONTRIB
from pulsify_onnx.rules.kit.traits import Trait, declare, declared, declares, has
from testing import ROOT

ASKED = {
    name
    for path in (ROOT / "pulsify_onnx").rglob("*.py")
    if path.name != "traits.py"
    for name in re.findall(r"(?<!declares\()(?<!declare\()Trait\.([A-Z_]+)\b", path.read_text(encoding="utf-8"))
}
"""Traits that are used otherwise than to declare them."""


def node(op_type: str, domain: str = "") -> ir.Node:
    return ir.Node(domain, op_type, [])


def test_what_a_rule_declares_is_known_of_a_node():
    assert has(node("Squeeze"), Trait.FORM) and has(node("Reshape"), Trait.PERMUTES, Trait.RESHAPES)
    assert not has(node("Relu"), Trait.FORM) and not has(None, Trait.FORM)
    assert declared(node("Slice"), Trait.BOUNDS) == (1, 2) and declared(node("Relu"), Trait.BOUNDS, ()) == ()


def test_an_operator_of_another_domain_is_another_one():
    assert declared(node("Attention"), Trait.CACHES) == ((4, 1), (5, 2))
    assert declared(node("Attention", CONTRIB), Trait.CACHES) == ((4, 1),)
    assert not has(node("Reshape", "elsewhere"), Trait.RESHAPES)


def test_one_of_several_operators_of_a_rule():
    assert RULES["", "QuantizeLinear"].function is RULES["", "DequantizeLinear"].function
    assert has(node("DequantizeLinear"), Trait.STAYS) and not has(node("QuantizeLinear"), Trait.STAYS)


def test_an_axis_is_followed_to_where_it_was():
    perm = {"perm": ir.AttrInt64s("perm", [2, 0, 1])}
    assert [declared(node("Transpose"), Trait.AXIS)(perm, k, 3) for k in range(3)] == [2, 0, 1]
    assert [declared(node("Transpose"), Trait.AXIS)({}, k, 3) for k in range(3)] == [2, 1, 0]
    assert declared(node("Cast"), Trait.AXIS)({}, 1, 3) == 1


def test_what_a_loop_carries():
    assert list(declared(node("Scan"), Trait.CARRIES)({"num_scan_inputs": ir.AttrInt64("num_scan_inputs", 1)}, 3)) == [
        0,
        1,
    ]
    assert list(declared(node("Loop"), Trait.CARRIES)({}, 4)) == [2, 3]


def test_a_declaration_twice_is_an_error():
    with pytest.raises(ValueError, match=":Slice declares twice that it takes a range"):
        declare(Trait.SLICES, "Slice")


def test_a_declaration_below_its_rule_is_an_error():
    with pytest.raises(ValueError, match="SLICES is declared of no operator"):

        @declares(Trait.SLICES)
        def no_rule(node):
            raise AssertionError


@pytest.mark.parametrize("trait", Trait)
def test_every_trait_is_declared_by_operators_that_have_a_rule(trait):
    assert traits._DECLARED[trait] and set(traits._DECLARED[trait]) <= set(RULES)


@pytest.mark.parametrize("trait", Trait)
def test_every_trait_is_asked_for(trait):
    assert trait.name in ASKED
