"""Constant folding: one operator on known values, by onnxruntime, so that folding and running agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnxruntime import InferenceSession

from pulsify_onnx.algebra.attributes import Attribute
from pulsify_onnx.arrays import Array
from pulsify_onnx.ort import BY_ZERO
from pulsify_onnx.ort import session as open_session

FOLDED_ELEMENTS = 1 << 16
"""Largest number of elements that is folded; weights stay nodes for the runtime to fold."""


NEWER = 13


def evaluate(
    op_type: str,
    inputs: Sequence[Array | None],
    attributes: Mapping[str, Any],
    *,
    opset: int,
    domain: str = "",
    outputs: int = 1,
) -> list[Array] | None:
    """Outputs of one operator on `inputs`; None where onnxruntime can't run it.

    Rules write operators in the form of later opsets, so that form is tried where the model's own has none.
    """
    forms = (opset,) if domain else dict.fromkeys((opset, max(opset, NEWER)))
    tried = (_evaluated(op_type, inputs, attributes, form, domain, outputs) for form in forms)
    return next((found for found in tried if found is not None), None)


def _evaluated(
    op_type: str, inputs: Sequence[Array | None], attributes: Mapping[str, Any], opset: int, domain: str, outputs: int
) -> list[Array] | None:
    if op_type in BY_ZERO and inputs[1] is not None and inputs[1].dtype.kind in "iu" and not inputs[1].all():
        return None
    node = onnx.NodeProto(
        op_type=op_type,
        domain=domain,
        input=["" if x is None else f"i{k}" for k, x in enumerate(inputs)],
        output=[f"o{k}" for k in range(outputs)],
    )
    node.attribute.extend(
        ir.serde.serialize_attribute(a if isinstance(a, ir.Attr) else _attribute(k, a)) for k, a in attributes.items()
    )
    kinds = tuple(
        (f"i{k}", int(ir.DataType.from_numpy(x.dtype)), x.ndim) for k, x in enumerate(inputs) if x is not None
    )
    try:
        session = _session(node.SerializeToString(deterministic=True), kinds, opset)
        found = session.run(None, {f"i{k}": x for k, x in enumerate(inputs) if x is not None})
    except Exception:  # what can't be folded is kept as a node, where its error would be seen
        return None
    if not all(isinstance(x, (np.ndarray, np.generic)) for x in found):
        return None  # sequences and maps are no arrays
    return [np.asarray(x) for x in found]


@lru_cache(maxsize=256)
def _session(serialized: bytes, kinds: tuple[tuple[str, int, int], ...], opset: int) -> InferenceSession:
    """The node as a model of its own, for inputs (name, dtype, rank) of any size; the same ones are folded again and
    again.
    """
    node = onnx.NodeProto.FromString(serialized)
    inputs = [onnx.helper.make_tensor_value_info(name, dtype, [None] * rank) for name, dtype, rank in kinds]
    graph = onnx.helper.make_graph([node], "fold", inputs, [onnx.ValueInfoProto(name=name) for name in node.output])
    imports = [onnx.helper.make_opsetid("", opset)] + (
        [onnx.helper.make_opsetid(node.domain, 1)] if node.domain else []
    )
    version = onnx.helper.find_min_ir_version_for(imports, ignore_unknown=True)
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=version)
    return open_session(model.SerializeToString(), severity=4, kept=True)


def _attribute(name: str, value: Any) -> ir.Attr:
    if isinstance(value, Attribute):
        return value.attr
    return ir.convenience.convert_attribute(name, list(value) if isinstance(value, tuple) else value)
