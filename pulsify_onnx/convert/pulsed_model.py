"""What a conversion gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from pulsify_onnx.algebra.plan import Plan
from pulsify_onnx.model.load import Source
from pulsify_onnx.output import write
from pulsify_onnx.report import tables


@dataclass(frozen=True)
class PulsedModel:
    """A pulsed model and its sidecar document ``spec``."""

    model: ir.Model
    spec: dict[str, Any]
    plan: Plan
    source: Source

    def proto(self) -> onnx.ModelProto:
        """The model as protobuf, metadata and weights included."""
        return ir.to_proto(write.inside(self.model))

    def save(self, path: str | Path) -> None:
        """Write the model to `path` and its sidecar beside it, both or none."""
        write.save(self.model, self.spec, Path(path))

    def report(self) -> dict[str, Any]:
        """The sidecar, and where the delay of each output comes from."""
        return tables.describe(self.plan, self.source, self.spec)
