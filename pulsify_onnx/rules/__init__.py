"""One rule per operator family: pure functions from a node and its facts to an `Outcome`.

Importing this package imports every module in it, and so registers every rule.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from pulsify_onnx.rules.kit.registry import RULES, Rule, lookup

for _module in sorted(m.name for m in iter_modules(__path__)):
    import_module(f"{__name__}.{_module}")

__all__ = ["RULES", "Rule", "lookup"]
