"""Typed views of a node's attributes across opset versions: where an attribute became an input, or a default
changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Expr
from pulsify_onnx.errors import refuse
from pulsify_onnx.model.schema import axes_are_input, has_attribute, has_optional, since_version
from pulsify_onnx.ort import SHORT_KERNELS
from pulsify_onnx.rules.kit.combinators import const, onnx_op
from pulsify_onnx.rules.kit.node import Node


@dataclass(frozen=True)
class Spatial:
    """Window attributes of convolutions and pools, one entry per spatial axis; pads: all befores, then all afters.

    ``least``: down to how many frames less than none onnxruntime pads by auto_pad SAME as the standard says.
    """

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    pads: list[int]
    auto_pad: str
    least: int = 0

    @property
    def same(self) -> bool:
        """Whether the pads follow from the size of the input."""
        return self.auto_pad in ("SAME_UPPER", "SAME_LOWER")

    @property
    def spans(self) -> list[int]:
        """Frames from the first to the last tap: ``(kernel - 1) * dilation + 1``."""
        return [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations)]


EXPLICIT = "export with explicit pads"


def spatial(node: Node, kernel: list[int]) -> Spatial:
    """The window of a convolution or pool with spatial `kernel`; refuses auto_pad SAME where onnxruntime is not as
    the standard says.
    """
    n = len(kernel)
    auto = node.attr("auto_pad", "NOTSET")
    pads = [0] * (2 * n) if auto != "NOTSET" else node.ints("pads") or [0] * (2 * n)
    view = Spatial(
        kernel,
        node.ints("strides") or [1] * n,
        node.ints("dilations") or [1] * n,
        pads,
        auto,
        SHORT_KERNELS.get(node.op_type, 0),
    )
    if view.same and node.op_type != "ConvTranspose":
        dilated = max(view.dilations) > 1 if "Conv" in node.op_type else view.spans != kernel
        if dilated:
            refuse(
                f"auto_pad {auto} with dilations, which onnxruntime does not pad as the standard says", hint=EXPLICIT
            )
    return view


def shorter(view: Spatial, k: int) -> NoReturn:
    """Refuse auto_pad SAME at spatial axis `k`, whose window is shorter than its stride."""
    refuse(
        f"auto_pad {view.auto_pad} with a kernel of {view.kernel[k]} and a stride of {view.strides[k]}, which "
        "onnxruntime does not pad as the standard says",
        hint=EXPLICIT,
    )


def by_attribute(node: Node, name: str) -> bool:
    """Whether the node says `name` by an attribute; by an input else, as in later versions."""
    return has_attribute(node.op_type, node.since, name, node.domain)


def may_lack(node: Node, index: int) -> bool:
    """Whether input `index` may be left out in the node's version."""
    return has_optional(node.op_type, node.since, index, node.domain)


def offers(node: Node, op_type: str) -> bool:
    """Whether the node's opset has the operator."""
    return since_version(op_type, node.opset, "") is not None


def axes_said(node: Node, index: int = 1) -> list[int] | None:
    """``axes`` as they are written, an attribute or input `index`; None if left out."""
    if by_attribute(node, "axes"):
        return node.ints("axes")
    value = node.const(index, "axes")
    return None if value is None else [int(v) for v in value.ravel()]


def axes_of(node: Node, rank: int, index: int = 1) -> list[int] | None:
    """``axes``, an attribute or input `index`; non-negative, None if left out."""
    found = axes_said(node, index)
    return None if found is None else [a + rank if a < 0 else a for a in found]


def normalised_axes(node: Node, rank: int) -> list[int]:
    """The axes that a softmax goes over: one, or (before opset 13) all from that on. A quantised one says its opset
    itself.
    """
    version = int(node.attr("opset", 13)) if node.domain else node.since
    axis = node.axis(rank, default=-1)
    return [axis] if version >= 13 else list(range(axis, rank))


def scales_at(node: Node) -> tuple[int, int | None]:
    """The inputs of a Resize or Upsample that say the scales and the sizes; None where these can't be said, nor how
    to sample.
    """
    return (1, None) if node.op_type == "Upsample" or node.since < 11 else (2, 3)


@dataclass(frozen=True)
class Cut:
    """One axis of a Slice; ``end`` None: to the very end (or, backwards, the very start)."""

    axis: int
    start: Length
    end: Length | None
    step: int


BEYOND_ANY_SIZE = 2**30
"""Bounds beyond this mean "to the end"."""


def cuts(node: Node, rank: int) -> list[Cut]:
    """The slices of a Slice node, bounds as written (negative ones are not resolved)."""
    if by_attribute(node, "starts"):
        starts: list[Length] | None = [Length.of(v) for v in node.ints("starts") or []]
        ends: list[Length] | None = [Length.of(v) for v in node.ints("ends") or []]
        axes, steps = node.ints("axes"), None
    else:
        starts, ends = node.sizes(1, "the start of the slice"), node.sizes(2, "the end of the slice")
        axes_value, steps_value = node.const(3, "axes"), node.const(4, "steps")
        axes = None if axes_value is None else [int(a) for a in axes_value.ravel()]
        steps = None if steps_value is None else [int(s) for s in steps_value.ravel()]
    if starts is None or ends is None:
        refuse("it has no bounds", hint="export it with starts and ends")
    out = []
    for k, (start, end) in enumerate(zip(starts, ends)):
        axis = axes[k] if axes is not None else k
        bound = end.constant
        far = bound is not None and abs(bound) > BEYOND_ANY_SIZE
        out.append(Cut(axis + rank if axis < 0 else axis, start, None if far else end, steps[k] if steps else 1))
    return out


def pads_of(node: Node, rank: int) -> tuple[list[tuple[Length, Length]], object, str]:
    """(before, after) of every axis, the fill value (a number) and the mode of a Pad node."""
    if by_attribute(node, "pads"):
        flat: list[Length] | None = [Length.of(v) for v in node.ints("pads") or []]
        value: object = node.attr("value", 0.0)
    else:
        flat = node.sizes(1, "the number of frames to pad")
        found = node.const(2, "the fill value")
        value = 0 if found is None or not found.size else found.reshape(-1)[0]
    if flat is None:
        refuse("it has no pads", hint="export it with constant pads")
    axes = list(range(rank))
    if node.fact(3) is not None:
        axes = axes_of(node, rank, index=3) or axes
    pads = [(Length.of(0), Length.of(0))] * rank
    for k, axis in enumerate(axes):
        pads[axis] = (flat[k], flat[k + len(axes)])
    return pads, value, node.attr("mode", "constant")


def by_axes(node: Node, op_type: str, data: Expr, axes: Sequence[int], **attributes: Any) -> Expr:
    """An operator along `axes`, in the form of the node's opset: they are an input, and were an attribute."""
    if axes_are_input(op_type, node.opset):
        return onnx_op(op_type, data, const(list(axes)), **attributes)
    return onnx_op(op_type, data, axes=list(axes), **attributes)
