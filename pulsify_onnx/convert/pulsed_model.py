"""What a conversion gives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from pulsify_onnx.algebra.plan import Plan
from pulsify_onnx.model.load import Source
from pulsify_onnx.output import write
from pulsify_onnx.report.description import Description, described
from pulsify_onnx.runtime.sidecar import Sidecar


@dataclass(frozen=True)
class PulsedModel:
    """A pulsed model and its ``sidecar``; ``spec`` is the document of it."""

    model: ir.Model
    sidecar: Sidecar
    plan: Plan
    source: Source

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The sidecar as plain data."""
        return self.sidecar.to_json()

    def proto(self) -> onnx.ModelProto:
        """The model as protobuf, metadata and weights included."""
        return ir.to_proto(write.with_weights(self.model))

    def save(self, path: str | Path) -> None:
        """Write the model to `path` and its sidecar beside it, both or none."""
        write.save(self.model, self.spec, Path(path))

    def report(self) -> dict[str, Any]:
        """The sidecar, and where the delay of each output comes from."""
        return self.description.to_json()

    @cached_property
    def description(self) -> Description:
        """The same as typed data."""
        return described(self.plan, self.source, self.sidecar, self.spec)
