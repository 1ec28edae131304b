"""Hunt for wrong streams: random networks, converted at random pulses and compared with their batch run.

Every fourth network is made of layers that show every perturbation: its delays are compared with the measured lookahead
too. Prints what ran, by family and by kind of layer, and why the rest was refused; what fails or is late is shrunk and
written to a folder. Exit status 1 on failure: late is not wrong.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx

from pulsify_onnx.errors import UNEXPECTED, CannotStream, PulsifyError
from testing.builder import Network, pruned
from testing.corners import KINDS, varied
from testing.lookahead import SMOOTH, off
from testing.networks import network
from testing.oracle import session
from testing.streams import check_streams
from tools.hunt import arguments


def attempt(model: onnx.ModelProto, net: Network, seed: int, delays: bool = False) -> str:
    """'' where the streams equal the batch runs, their `delays` too, else what is wrong. Raises `CannotStream` for a
    refusal.
    """
    try:
        for n in (net.lengths[0], net.lengths[-1]):
            feeds = {
                v.name: np.zeros(
                    [d.dim_value or (3 if d.dim_param == "N" else n) for d in v.type.tensor_type.shape.dim], np.float32
                )
                for v in model.graph.input
            }
            session(model.SerializeToString(), plain=True).run(None, feeds)
    except Exception as problem:
        return f"{'unrun' if model.opset_import[0].version < 13 else 'no batch model'}: {str(problem)[:300]}"
    try:
        session(model.SerializeToString())
    except Exception as problem:  # its optimisation breaks some models of integers, so there is nothing to agree with
        return f"unrun: {str(problem)[:300]}"
    try:
        if found := check_streams(model, net, np.random.default_rng(seed)):
            return "unequal: " + found
        if delays and (delayed := off(model, net.unit)):
            return ("wrong: " if any(o.delay < o.least for o in delayed) else "late: ") + "; ".join(map(str, delayed))
    except CannotStream as refusal:
        if UNEXPECTED not in str(refusal):
            raise
        return f"crash: {str(refusal)[:300]}"
    except AssertionError as problem:
        return f"wrong: {str(problem)[:300] or 'assertion'}"
    except PulsifyError as problem:
        return f"error: {problem}"
    except Exception as problem:  # whatever it is, it is a finding
        return f"crash: {type(problem).__name__}: {str(problem)[:300]}"
    return ""


def smooth(seed: int) -> bool:
    """Whether the network of this seed is one whose delays are measured."""
    return seed % 4 == 0


def shrink(model: onnx.ModelProto, fails: Callable[[onnx.ModelProto], str], seconds: float = 60) -> onnx.ModelProto:
    """A smaller model that still fails: one output, the earliest wire that is wrong, nodes bypassed."""
    end = time.monotonic() + seconds
    known = {v.name: v for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
    if len(model.graph.output) > 1:
        for output in model.graph.output:
            less = _with_output(model, output)
            if fails(less):
                model = less
                break
    for node in list(model.graph.node)[:-1]:
        for name in node.output:
            value = known.get(name)
            if (
                time.monotonic() > end
                or value is None
                or not value.type.tensor_type.HasField("shape")
                or value.type.tensor_type.elem_type != 1
            ):
                continue
            less = _with_output(model, value)
            if fails(less):
                return _bypassed(less, fails, end)
    return _bypassed(model, fails, end)


def _with_output(model: onnx.ModelProto, value: onnx.ValueInfoProto) -> onnx.ModelProto:
    less = onnx.ModelProto()
    less.CopyFrom(model)
    del less.graph.output[:]
    less.graph.output.append(value)
    return pruned(less)


def _bypassed(model: onnx.ModelProto, fails: Callable[[onnx.ModelProto], str], end: float) -> onnx.ModelProto:
    k = 0
    while k < len(model.graph.node) and time.monotonic() < end:
        less = onnx.ModelProto()
        less.CopyFrom(model)
        node = less.graph.node[k]
        gone, source = (
            set(node.output),
            next((i for i in node.input if not any(w.name == i for w in less.graph.initializer)), ""),
        )
        del less.graph.node[k]
        for other in less.graph.node:
            for j, name in enumerate(other.input):
                if name in gone:
                    other.input[j] = source
        for output in less.graph.output:
            if output.name in gone:
                gone = set()
                break
        if gone and source and fails(pruned(less)):
            model = pruned(less)
        else:
            k += 1
    return model


TOLD = ("late", "unequal", "unrun")
"""What is counted and shown, and is no failure: frames later than need be, quantised frames that onnxruntime's
optimisation rounds another way, and old models for which onnxruntime infers another shape than it makes."""


class Tally:
    """What networks of every family and with every kind of layer came to."""

    def __init__(self) -> None:
        self.drawn, self.found, self.refusals = Counter[str](), Counter[str](), Counter[str]()

    def add(self, family: str, net: Network, found: str) -> None:
        """A network and what is wrong with its streams."""
        what = found.partition(":")[0]
        self.drawn.update({family, *net.kinds})
        self.found.update((k, what) for k in {family, *net.kinds} if what)

    def table(self) -> str:
        """A line for each."""
        whats = sorted({what for _, what in self.found})
        return "\n".join(
            f"  {self.drawn[k]:5} {k:24}" + "".join(f" {self.found[k, w]} {w}" for w in whats if self.found[k, w])
            for k in sorted(self.drawn)
        )


def drawn(seed: int, size: int | None, kind: str) -> tuple[Network, str]:
    """The network of a seed and its family."""
    return (network(seed, size, SMOOTH), "smooth") if smooth(seed) and not kind else varied(seed, size, kind)


def smaller(net: Network, seed: int, what: str, delays: bool) -> tuple[onnx.ModelProto, str]:
    """A smaller model that fails in the same way, and how."""

    def fails(model: onnx.ModelProto) -> str:
        try:
            again = attempt(model, net, seed, delays)
        except Exception:  # another model, another problem
            return ""
        return again if again.startswith(what) else ""

    small = shrink(net.model, fails)
    return small, fails(small)


def main() -> int:
    """Command line."""
    args = arguments(__doc__, "build/fuzz-failures", kinds=KINDS)
    end, seed, counts, tally = time.monotonic() + args.seconds, args.seed, Counter[str](), Tally()
    while time.monotonic() < end and seed - args.seed < args.count:
        net, family = drawn(seed, args.size, args.kind)
        try:
            found = attempt(net.model, net, seed, family == "smooth")
        except CannotStream as refusal:
            counts["refused"] += 1
            tally.refusals[f"{refusal.blockers[0].op_type}: {refusal.blockers[0].reason}"[:140]] += 1
            found = ""
        tally.add(family, net, found)
        if found:
            counts[kind if (kind := found.split(":")[0]) in TOLD else "failed"] += 1
            small, why = smaller(net, seed, kind, family == "smooth")
            args.out.mkdir(parents=True, exist_ok=True)
            path = args.out / f"seed_{seed}.onnx"
            onnx.save(small, path)
            print(
                f"seed {seed}: {found}\n  shrunk to {len(small.graph.node)} of {len(net.model.graph.node)} nodes: "
                f"{path}: {why}",
                flush=True,
            )
        seed += 1
    print(
        f"{seed - args.seed} networks from seed {args.seed}: {counts['failed']} failed, "
        + ", ".join(f"{counts[k]} {k}" for k in (*TOLD, "refused"))
    )
    print(tally.table())
    for reason, count in tally.refusals.most_common(20):
        print(f"  {count:5} {reason}")
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
