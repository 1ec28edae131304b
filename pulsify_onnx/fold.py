"""Constant folding: one operator on known values, by onnxruntime, so that folding and running agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from pulsify_onnx.facts import Array
from pulsify_onnx.plan import Attribute

LIMIT = 1 << 16
"""Largest number of elements that is folded; weights stay nodes for the runtime to fold."""


NEWER = 13


def evaluate(op_type: str, inputs: Sequence[Array | None], attributes: Mapping[str, Any], *,
             opset: int, domain: str = "", outputs: int = 1) -> list[Array] | None:
    """Outputs of one operator on `inputs`; None where onnxruntime can't run it.

    Rules write operators in the form of later opsets, so that form is tried where the model's own has none.
    """
    found = _evaluated(op_type, inputs, attributes, opset, domain, outputs)
    return _evaluated(op_type, inputs, attributes, NEWER, domain, outputs) if found is None and domain == "" and opset < NEWER else found


def _evaluated(op_type: str, inputs: Sequence[Array | None], attributes: Mapping[str, Any], opset: int, domain: str, outputs: int) -> list[Array] | None:
    import onnxruntime as ort

    if op_type in ("Div", "Mod") and inputs[1] is not None and inputs[1].dtype.kind in "iu" and not inputs[1].all():
        return None  # onnxruntime ends the process
    values = [None if x is None else ir.Value(name=f"i{k}", shape=ir.Shape(x.shape), type=ir.TensorType(ir.DataType.from_numpy(x.dtype)))
              for k, x in enumerate(inputs)]
    node = ir.Node(domain, op_type, values, [a if isinstance(a, ir.Attr) else _attribute(k, a) for k, a in attributes.items()],
                   num_outputs=outputs)
    for k, out in enumerate(node.outputs):
        out.name = f"o{k}"
    imports = {"": opset} | ({domain: 1} if domain else {})
    graph = ir.Graph([v for v in values if v is not None], node.outputs, nodes=[node], opset_imports=imports, name="fold")
    proto = ir.to_proto(ir.Model(graph, ir_version=10 if opset < 24 else 11))
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found = session.run(None, {f"i{k}": x for k, x in enumerate(inputs) if x is not None})
    except Exception:  # what can't be folded is kept as a node, where its error would be seen
        return None
    if not all(isinstance(x, (np.ndarray, np.generic)) for x in found):
        return None  # sequences and maps are no arrays
    return [np.asarray(x) for x in found]


def _attribute(name: str, value: Any) -> ir.Attr:
    if isinstance(value, Attribute):
        return value.attr
    return ir.convenience.convert_attribute(name, list(value) if isinstance(value, tuple) else value)
