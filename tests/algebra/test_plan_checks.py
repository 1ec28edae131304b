"""Every rule that a plan keeps is named where a plan breaks it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pulsify_onnx import analyze
from pulsify_onnx.algebra.delay import Timing
from pulsify_onnx.algebra.plan import Op, Options, Past, Plan, Requirement, Step, When, Window
from pulsify_onnx.algebra.plan import Test as Asked
from pulsify_onnx.algebra.plan_checks import PLAN_RULES, check_plan
from pulsify_onnx.analysis.axis import choose
from pulsify_onnx.errors import Blocker, BrokenRule
from pulsify_onnx.model.load import load
from testing.oracle import parse, rand

TWO = """agraph (float[1,4,T] x) => (float[1,4,T] y) {
    a = Conv<pads=[1,1]>(x, w)
    y = Conv<pads=[1,1]>(a, w) }"""


def plan() -> Plan:
    return analyze(parse(TWO, w=rand(4, 4, 3))).at()


def last(found: Plan, **changes) -> Plan:
    return replace(found, steps=(*found.steps[:-1], replace(found.steps[-1], **changes)))


def window(step: Step) -> Window:
    assert isinstance(step.exprs[0], Op)
    return next(e for e in step.exprs[0].inputs if isinstance(e, Window))


def reading(found: Plan, expr) -> Plan:
    op = found.steps[-1].exprs[0]
    return last(found, exprs=(replace(op, inputs=(expr, *op.inputs[1:])),))


BROKEN = {
    "every wire is made once": lambda p: last(p, wires=("a",)),
    "every wire has a fact": lambda p: replace(p, wires={k: v for k, v in p.wires.items() if k != "y"}),
    "windows are of streams": lambda p: reading(p, replace(window(p.steps[-1]), wire="w")),
    "wires are made before they are read": lambda p: replace(p, steps=p.steps[::-1]),
    "steps read their own states only": lambda p: reading(p, Past("other")),
    "operators have the outputs that are read": lambda p: last(p, exprs=(replace(p.steps[-1].exprs[0], index=1),)),
    "what is scheduled is numbers": lambda p: reading(
        p, When(Asked(ends=True), window(p.steps[-1]), window(p.steps[-1]))
    ),
    "windows are of what has come": lambda p: reading(p, replace(window(p.steps[-1]), back=1)),
}


def test_a_right_plan_keeps_them():
    check_plan(plan(), "schedule")


def test_every_rule_is_tried():
    assert set(BROKEN) == {rule.name for rule in PLAN_RULES}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_named(rule):
    with pytest.raises(BrokenRule, match=r"after there, the rule .* is broken") as found:
        check_plan(BROKEN[rule](plan()), "there")
    assert (found.value.rule, found.value.stage) == (rule, "there")


def test_facts_and_expressions_go_together():
    with pytest.raises(BrokenRule, match="1 wires, 1 expressions, 0 facts"):
        check_plan(last(plan(), facts=()), "there")


def test_what_waits_for_the_schedule_is_seen():
    found = plan()
    with pytest.raises(BrokenRule, match="depends on the schedule"):
        check_plan(last(found, requires=(Requirement(Asked(ends=True), "why", "hint"),)), "there")
    check_plan(replace(last(found, requires=(Requirement(Asked(ends=True), "why", "hint"),)), timing=None), "there")


def test_unknown_delays_are_seen():
    _, found = choose(load(parse(TWO, w=rand(4, 4, 3))), {}, Options())
    check_plan(found, "analysis")
    with pytest.raises(BrokenRule, match="what is scheduled is numbers"):
        check_plan(replace(found, timing=Timing()), "there")


def test_a_plan_that_is_blocked_need_not_keep_them():
    check_plan(
        replace(BROKEN["every wire is made once"](plan()), blockers=(Blocker("n", "Op", "why", "hint"),)), "there"
    )
