"""Opsets as the analysis reads them: one for the model and its functions, and none before 9."""

from __future__ import annotations

import onnx_ir as ir

from pulsify_onnx.errors import InvalidModel
from pulsify_onnx.model.edit import GraphEditor
from pulsify_onnx.model.schema import since_version


class OneOpset(ir.passes.InPlacePass):
    """Bring functions to the opsets of the model, where that changes no operator of theirs."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Raises `InvalidModel` where it would."""
        modified = False
        for function in model.functions.values():
            for domain, version in list(function.opset_imports.items()):
                wanted = model.opset_imports.get(domain, version)
                if wanted == version:
                    continue
                for node in ir.traversal.RecursiveGraphIterator(function):
                    if node.domain == domain and since_version(node.op_type, version, domain) != since_version(
                        node.op_type, wanted, domain
                    ):
                        raise InvalidModel(
                            f"function {function.name!r} has {node.op_type} of opset {version}, the model is of "
                            f"opset {wanted}; "
                            "export both for one opset"
                        )
                function.opset_imports[domain] = wanted
                modified = True
        return ir.passes.PassResult(model, modified)


class AtLeastOpset9(ir.passes.InPlacePass):
    """Read opsets 7 and 8 as 9, the first with Where, which masks need; other operators are the same but for three."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Raises `InvalidModel` for what has no counterpart."""
        if model.opset_imports[""] >= 9:
            return ir.passes.PassResult(model, modified=False)
        for node in [*ir.traversal.RecursiveGraphIterator(model.graph)]:
            if node.domain:
                continue
            if node.op_type == "Scan":
                raise InvalidModel(
                    "Scan of opset 8 is another operator than later ones; convert it with onnx.version_converter"
                )
            if node.op_type == "BatchNormalization":
                spatial = node.attributes.pop("spatial", None)
                if spatial is not None and not spatial.as_int():
                    raise InvalidModel(
                        "BatchNormalization with spatial=0 is gone since opset 9; export with a later opset"
                    )
            if node.op_type == "Upsample" and "scales" in node.attributes and node.graph is not None:
                scales = (
                    GraphEditor(node.graph)
                    .before(node)
                    .op("Constant", value_floats=node.attributes.pop("scales").as_floats())
                )
                node.resize_inputs(2)
                node.replace_input_with(1, scales)
        model.opset_imports[""] = 9
        return ir.passes.PassResult(model, modified=True)
