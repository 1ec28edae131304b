"""What holds for every test."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_rule_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that no rule means to raise fails the test; a user is shown a refusal."""

    def fail(problem: Exception) -> None:
        raise problem

    monkeypatch.setattr("pulsify_onnx.analysis.walker.unexpected", fail)
