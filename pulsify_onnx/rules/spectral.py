"""Front-ends: the short-time Fourier transform as a window reader, transforms and filter banks across the stream."""

from __future__ import annotations

from pulsify_onnx.algebra.facts import Static
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Outcome
from pulsify_onnx.algebra.windows import align, windowed
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.kit.combinators import UNKNOWN_SHAPE, as_outcome, passthrough, same_op, static, the_stream
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import rule
from pulsify_onnx.rules.kit.views import by_attribute


def _number(node: Node, index: int, what: str) -> int | None:
    value = node.const(index, what)
    return None if value is None else int(value.reshape(-1)[0])


def _frame_length(node: Node) -> int:
    """Samples of one frame: the length that is told, else that of the window."""
    length = _number(node, 3, "the frame length")
    taper = node.fact(2)
    if taper is None:
        return (
            length
            if length is not None
            else refuse("it has neither a window nor a frame length", hint="export it with one of them")
        )
    size = taper.shape[0].constant if isinstance(taper, Static) and len(taper.shape) == 1 else None
    if size is None:
        refuse("the length of its window is not known", hint="make the window a constant before exporting")
    if length is not None and length != size:
        refuse(
            f"its window has {size} samples and its frames have {length}",
            hint="pad the window to the length of the frames",
        )
    return size


@rule("STFT", versions=(17,))
def stft(node: Node) -> Outcome:
    """Along the samples, a fixed frame length and hop: one frame every hop. State: the samples that frames share.

    Refuses: a hop or a frame length that is computed.
    """
    x = the_stream(node)
    if x.axis == 2:
        refuse("the stream runs along the real and imaginary parts", hint="name another axis with --axis")
    hop, length = _number(node, 1, "the hop"), _frame_length(node)
    if hop is None or hop < 1:
        refuse("it has no hop", hint="export it with a constant frame_step")
    bins = length // 2 + 1 if node.attr("onesided", 1) else length
    if x.axis == 1:
        window, y = windowed(x, length, hop, node.options)
    else:
        (window,), y = align([x], node.options)
    frames = (x.shape[1] - length).floordiv(hop) + 1
    y = y.placed(node.outputs[0], x.dtype, (x.shape[0], frames, Length.of(bins), Length.of(2)), x.axis)
    return as_outcome(node, [same_op(node, [window, *(static(node, k) for k in range(1, len(node.facts)))])], [y])


@rule("DFT", versions=(17, 20))
def dft(node: Node) -> Outcome:
    """Any axis but the one it transforms and that of the real and imaginary parts.

    Refuses: a transform over the whole stream.
    """
    x = the_stream(node)
    given = int(node.attr("axis", 1)) if by_attribute(node, "axis") else _number(node, 2, "the axis")
    axis = -2 if given is None else given
    axis += x.rank if axis < 0 else 0
    if x.axis == x.rank - 1:
        refuse("the stream runs along the real and imaginary parts", hint="name another axis with --axis")
    length = x.shape[axis].constant if node.fact(1) is None else _number(node, 1, "the length of the transform")
    if axis == x.axis:
        refuse(
            "it transforms the whole stream at once, so every value needs the last frame",
            hint="transform frames of fixed length (STFT)",
        )
    if length is None:
        refuse("the length of the transform is not known", hint=UNKNOWN_SHAPE)
    return passthrough(node, [x.axis, None, None][: len(node.facts)])


@rule("HannWindow", "HammingWindow", "BlackmanWindow", "MelWeightMatrix", versions=(17,))
def table(node: Node) -> Outcome:
    """A constant, of a size that does not depend on the stream.

    Refuses: a size that is the length of the stream.
    """
    refuse("its size follows the length of the whole stream, and so does every value of it", hint="use a fixed size")
