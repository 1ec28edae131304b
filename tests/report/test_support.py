"""Every operator has an answer: a rule, a refusal with a reason, or the analysis itself."""

import onnx
import pytest

from pulsify_onnx.report.support import END, FOLDED, START, operators_table, rows, written
from pulsify_onnx.rules.kit.registry import CONTRIB, RULES
from testing import ROOT

PAGE = ROOT / "docs" / "operators.md"

UNKNOWN_VERSIONS: dict[str, dict[int, str]] = {
    "Attention": {25: "its window attributes would be a band without a mask; onnxruntime does not run it yet"},
    "Scan": {8: "opset 8 only: it has a batch axis and is refused when the model is loaded"},
}
"""Versions that are left out on purpose, and why."""

HISTORY: dict[str, list[onnx.defs.OpSchema]] = {}
for _schema in onnx.defs.get_all_schemas_with_history():
    if _schema.domain == "":
        HISTORY.setdefault(_schema.name, []).append(_schema)


def in_use(name: str) -> set[int]:
    """Versions of an operator in force at opset 9 or later (7 and 8 are read as 9) that are not deprecated."""
    versions = sorted(s.since_version for s in HISTORY[name] if not s.deprecated)
    old = [v for v in versions if v <= 9]
    return {*old[-1:], *(v for v in versions if v > 9)}


@pytest.mark.parametrize("name", sorted(HISTORY))
def test_every_operator_has_an_answer(name):
    if ("", name) not in RULES:
        assert name in FOLDED or not in_use(name), f"{name} has neither a rule nor a refusal"
        return
    rule = RULES["", name]
    if rule.versions is not None:
        known = set(rule.versions) | set(UNKNOWN_VERSIONS.get(name, {}))
        missing = in_use(name) - known
        assert not missing, f"{name}: the rule does not know the versions {sorted(missing)}"
        invented = set(rule.versions) - {s.since_version for s in HISTORY[name]} - {1}
        assert not invented, f"{name} has no versions {sorted(invented)}"


CONTRIB_BY_OPTIMIZER = (
    "Attention",
    "BiasGelu",
    "DynamicQuantizeLSTM",
    "DynamicQuantizeMatMul",
    "EmbedLayerNormalization",
    "FastGelu",
    "FusedConv",
    "FusedGemm",
    "FusedMatMul",
    "Gelu",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "MultiHeadAttention",
    "NhwcFusedConv",
    "NhwcMaxPool",
    "QAttention",
    "QLinearAdd",
    "QLinearAveragePool",
    "QLinearConcat",
    "QLinearConv",
    "QLinearGlobalAveragePool",
    "QLinearLeakyRelu",
    "QLinearMul",
    "QLinearSigmoid",
    "QLinearSoftmax",
    "QLinearWhere",
    "QuickGelu",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
    "GroupQueryAttention",
    "QGemm",
    "QuantizeLinear",
    "DequantizeLinear",
)


@pytest.mark.parametrize("name", CONTRIB_BY_OPTIMIZER)
def test_contrib_operators_have_an_answer(name):
    assert (CONTRIB, name) in RULES


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: f"{rule.domain}:{rule.op_type}")
def test_every_rule_is_documented(rule):
    assert rule.summary.endswith("."), (
        f"the docstring of the rule for {rule.op_type} has no first paragraph that ends with a period"
    )


def test_table():
    text = operators_table()
    assert all(len(line.replace("\\|", "").split("|")) == 5 for line in text.splitlines())
    assert len({name for row in rows() for name in row.operators}) == sum(len(row.operators) for row in rows())


def test_the_page_of_operators_is_up_to_date():
    text = PAGE.read_text(encoding="utf-8")
    assert START in text and END in text
    assert written(text) == text, "run: python -m pulsify_onnx.report.support --write docs/operators.md"
