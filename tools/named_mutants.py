"""Faults of the tool by name, each found once by what now must see it: tests of its place, and ``verify`` of a small
model of some family.

``verify`` must find that the stream differs (then ``--trace`` names the first node that does), or that it comes later
than it need, or that a frame has an influence beyond the receptive field.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tools.mutation_tree import ROOT, Tree

VERIFY = """
from testing.families import EDGES, FAMILIES
from pulsify_onnx import pulsify, verify
from pulsify_onnx.api import trace
from pulsify_onnx.errors import PulsifyError, UnusableStream
for name, make in {**EDGES, **FAMILIES}.items():
    for pulse in (1, 4):
        for end in (False, True):
            model = make()
            try:
                pulsed = pulsify(model, pulse=pulse, end_of_stream=end)
            except PulsifyError:
                continue
            try:
                found = verify(model, pulsed, measure=True)
            except UnusableStream as problem:
                print(f"{name}: {problem}")
                raise SystemExit(CAUGHT)
            if found.late:
                print(f"{name}: late by {found.late}")
            elif not found.ok:
                first = trace(model, pulsed, found)
                print(f"{name}: {first.op_type} {first.node}" if first else f"{name}: {found.message}")
            if found.late or not found.ok:
                raise SystemExit(CAUGHT)
"""

CAUGHT = 77
"""Exit code of VERIFY where it finds something; an exception elsewhere is no find."""


@dataclass(frozen=True)
class Mutant:
    """``old`` becomes ``new`` in ``file``; ``tests`` must see it."""

    name: str
    file: str
    old: str
    new: str
    tests: str


MUTANTS = [
    Mutant(
        "mask dropped",
        "algebra/border.py",
        "    if border is None or (not before and not after):\n        return None\n    if isinstance(border, Mirror):",
        "    return None\n    if isinstance(border, Mirror):",
        "tests/rules/test_conv.py",
    ),
    Mutant(
        "mask one frame early",
        "passes/schedule.py",
        "low, high = mask.first + delay, mask.end + delay",
        "low, high = mask.first + delay - 1, mask.end + delay",
        "tests/rules/test_conv.py",
    ),
    Mutant(
        "end of the mask one frame late",
        "passes/schedule.py",
        "low, high = mask.first + delay, mask.end + delay",
        "low, high = mask.first + delay, mask.end + delay + 1",
        "tests/rules/test_conv.py",
    ),
    Mutant(
        "history that begins as zeros whatever the border",
        "lowering/states.py",
        "        if not isinstance(border, Const) or not border.array.any():\n            return past\n",
        "        return past\n",
        "tests/rules/test_quantized.py",
    ),
    Mutant(
        "frames before the first are no zeros, and not masked",
        "passes/quantised_histories.py",
        "        if narrow is not None and (w.mask is not None or",
        "        if narrow is not None and (w.mask is not None and",
        "tests/rules/test_quantized.py",
    ),
    Mutant(
        "pad_before kept by a pad at the end",
        "algebra/padding.py",
        "pad_before=x.pad_before + before,",
        "pad_before=x.pad_before,",
        "tests/rules/test_conv.py",
    ),
    Mutant(
        "window one frame late",
        "algebra/windows.py",
        "    back = stride * delay - x.delay\n",
        "    back = stride * delay - x.delay - 1\n",
        "tests/rules/test_conv.py",
    ),
    Mutant(
        "delay one frame short",
        "algebra/windows.py",
        "AtLeast(x.delay + (span - stride), stride)",
        "AtLeast(x.delay + (span - stride) - stride, stride)",
        "tests/rules/test_conv.py",
    ),
    Mutant(
        "delay one frame too long",
        "algebra/windows.py",
        "AtLeast(x.delay + (span - stride), stride)",
        "AtLeast(x.delay + (span - stride) + stride, stride)",
        "tests/rules/test_conv.py",
    ),
    Mutant(
        "stream not aligned at a join",
        "algebra/windows.py",
        "            delay - x.delay,\n            Frames(x.rate),\n",
        "            0,\n            Frames(x.rate),\n",
        "tests/rules/test_arithmetic.py",
    ),
    Mutant(
        "joined at the delay of the last",
        "algebra/windows.py",
        "[AtLeast(x.delay) for x in xs if not x.positional]",
        "[AtLeast(x.delay) for x in xs if not x.positional][-1:]",
        "tests/rules/test_arithmetic.py",
    ),
    Mutant(
        "least bound taken",
        "algebra/delay.py",
        "= max(value for value in found if value is not None)",
        "= min(value for value in found if value is not None)",
        "tests/rules/test_border.py tests/rules/test_pad.py tests/rules/test_conv.py tests/algebra/test_windows.py",
    ),
    Mutant(
        "crop costs no delay",
        "algebra/padding.py",
        "delay=x.delay + start,",
        "delay=x.delay,",
        "tests/rules/test_slicing.py",
    ),
    Mutant(
        "history one frame short",
        "lowering/lower.py",
        "present = self.emit.slice(line, x.axis, -history, TO_END)",
        "present = self.emit.slice(line, x.axis, -history - 1, -1)",
        "tests/rules/test_conv.py",
    ),
    Mutant(
        "mask lets the frame after the last through",
        "lowering/states.py",
        'tests.append(self.emit.one("Less", position, self._length(mask.high)))',
        'tests.append(self.emit.one("Not", self.emit.one("Less", self._length(mask.high), position)))',
        "tests/rules/test_conv.py",
    ),
    Mutant(
        "mask by a product",
        "lowering/states.py",
        'return self.emit.one("Where", flags, value, border)',
        'return self.emit.one("Mul", self.emit.one("Cast", flags, to=int(dtype)), value)',
        "tests/rules/test_conv.py",
    ),
    Mutant(
        "clock starts at one",
        "lowering/states.py",
        "            self.clock = self._number(past)",
        "            self.clock = self._number(self.after)",
        "tests/rules/test_conv.py",
    ),
    Mutant(
        "frames past the end are counted",
        "lowering/states.py",
        "            if self.plan.ends:\n                valid",
        "            if False:\n                valid",
        "tests/rules/test_conv.py",
    ),
    Mutant(
        "flushing turned off",
        "algebra/promises.py",
        "    return worst\n",
        "    return 0\n",
        "tests/algebra/test_windows.py tests/algebra/test_delays.py tests/rules/test_conv.py",
    ),
    Mutant(
        "one flushing pulse short",
        "algebra/promises.py",
        "needed - math.ceil(n / step)",
        "needed - math.ceil(n / step) - 1",
        "tests/algebra/test_delays.py tests/rules/test_conv.py",
    ),
    Mutant(
        "receptive field off",
        "report/sidecar.py",
        "math.floor(reach.future - reach.past + reach.between) + 1",
        "math.floor(reach.future - reach.past + reach.between)",
        "tests/report/test_report.py tests/algebra/test_windows.py tests/test_systems.py",
    ),
    Mutant(
        "borders of zeros by guess",
        "algebra/padding_fold.py",
        "            return found_all[e.index]\n",
        "            return np.zeros_like(found_all[e.index])\n",
        "tests/rules/test_arithmetic.py tests/rules/test_border.py tests/rules/test_conv.py",
    ),
    Mutant(
        "conv pads at both ends swapped",
        "rules/conv.py",
        "padded = pad(x, before, after, border or zero(x)",
        "padded = pad(x, int(after.at(0)), before, border or zero(x)",
        "tests/rules/test_conv.py",
    ),
    Mutant(
        "transposed conv cut at the wrong frame",
        "rules/conv.py",
        "expr = cut(whole, x.axis, up.start, Frames(raw.rate))",
        "expr = cut(whole, x.axis, up.start - 1, Frames(raw.rate))",
        "tests/rules/test_conv_transpose.py",
    ),
    Mutant(
        "a number that a length meets once is passed over",
        "algebra/ordering.py",
        "            return n + 1",
        "            return 1",
        "tests/algebra/test_length.py",
    ),
    Mutant(
        "first frames are waited for with the long streams only",
        "passes/schedule.py",
        "min(Fraction(self.least), extent.constant / rate)",
        "extent.constant / rate",
        "tests/rules/test_reductions.py",
    ),
    Mutant(
        "what waits changes what others wait for",
        "passes/schedule.py",
        "first_of(sooner or plan, first)",
        "first_of(plan, first)",
        "tests/passes/test_placement.py",
    ),
    Mutant(
        "numbers of keys past the end are the caller's",
        "rules/kit/guarded.py",
        "return guarded(expr, x, fill) if mine and isinstance(expr, Window) else rebuilt(expr, valid)",
        "return rebuilt(expr, valid)",
        "tests/rules/test_across.py",
    ),
    Mutant(
        "delay at a higher rate not scaled",
        "algebra/windows.py",
        "delay=x.delay * factor,",
        "delay=x.delay,",
        "tests/rules/test_reshape.py",
    ),
    Mutant(
        "max pool pads with zeros",
        "rules/pool.py",
        "_pooled(node, lowest_of(x))",
        "_pooled(node, zero(x))",
        "tests/rules/test_pool.py",
    ),
    Mutant(
        "divisor of a mean counts padding",
        "rules/pool.py",
        "open_start = before > 0 and not counted",
        "open_start = False",
        "tests/rules/test_pool.py",
    ),
    Mutant("divisor at the end off", "rules/pool.py", "(0, x.extent)", "(0, x.extent + 1)", "tests/rules/test_pool.py"),
    Mutant(
        "initial state taken in every pulse",
        "rules/recurrent.py",
        'onnx_op("Where", started(y), past, initial)',
        "initial",
        "tests/rules/test_recurrent.py",
    ),
    Mutant(
        "initial state never taken",
        "rules/recurrent.py",
        'onnx_op("Where", started(y), past, initial)',
        "past",
        "tests/rules/test_recurrent.py",
    ),
    Mutant(
        "recurrence runs over the warm-up",
        "rules/held.py",
        "self.x, self.warm, self.ends = x, late, ended",
        "self.x, self.warm, self.ends = x, False, ended",
        "tests/rules/test_recurrent.py",
    ),
    Mutant(
        "state of a recurrence on the wrong axis",
        "rules/recurrent.py",
        'value, "recurrent", batch=1)',
        'value, "recurrent", batch=0)',
        "tests/rules/test_recurrent.py",
    ),
    Mutant(
        "sum forgets what came before",
        "rules/cumulative.py",
        "[onnx_op(kind.combine, inclusive, past)]",
        "[inclusive]",
        "tests/rules/test_cumulative.py",
    ),
    Mutant(
        "readers that begin sooner are forgotten",
        "passes/unread.py",
        "min(self.first.get(wire, index), index)",
        "max(self.first.get(wire, index), index)",
        "tests/rules/test_unread_starts.py",
    ),
    Mutant(
        "what is carried is read from the crop on",
        "passes/unread.py",
        "for wire in step.wires if whole else ():",
        "for wire in ():",
        "tests/rules/test_unread_starts.py",
    ),
    Mutant(
        "sum counts a pulse twice",
        "rules/cumulative.py",
        "shape, onnx_op(kind.combine, past, last)",
        "shape, onnx_op(kind.combine, onnx_op(kind.combine, past, last), last)",
        "tests/rules/test_cumulative.py",
    ),
    Mutant(
        "sum over the warm-up",
        "rules/cumulative.py",
        "select(along(real, x), window, neutral, x.dtype), window)",
        "window, window)",
        "tests/rules/test_cumulative.py",
    ),
    Mutant(
        "attention sees one key more",
        "algebra/query_key.py",
        "back = delay - x.delay + band.left\n",
        "back = delay - x.delay + band.left - 1\n",
        "tests/rules/test_attention.py",
    ),
    Mutant(
        "chunks closed early",
        "algebra/facts.py",
        "(query // self.chunk + 1 + self.ahead) * self.chunk - 1",
        "(query // self.chunk + 1 + self.ahead) * self.chunk - 2",
        "tests/rules/test_attention.py",
    ),
]


def mutated(mutant: Mutant, text: str) -> str:
    """The source with the mutant in it."""
    if text.count(mutant.old) < 1:
        raise ValueError(f"mutant {mutant.name!r}: {mutant.file} has no {mutant.old!r}")
    return text.replace(mutant.old, mutant.new)


def caught(mutant: Mutant | None) -> tuple[bool, bool, str, str]:
    """Whether the tests see a mutant, whether ``verify`` does, the first test that fails, and what ``verify`` finds."""
    tests = mutant.tests if mutant is not None else " ".join(sorted({t for m in MUTANTS for t in m.tests.split()}))
    with Tree(ROOT) as tree:
        if mutant is not None:
            tree.change(f"pulsify_onnx/{mutant.file}", mutated(mutant, tree.text(f"pulsify_onnx/{mutant.file}")))
        code, by = tree.tests(tests.split())
        verify = subprocess.run(
            [sys.executable, "-c", f"CAUGHT = {CAUGHT}\n{VERIFY}"],
            cwd=tree.root,
            env={**os.environ, **tree.environment},
            capture_output=True,
            text=True,
            check=False,
        )
    return code == 1, verify.returncode == CAUGHT, by, " ".join((verify.stdout or verify.stderr[-200:]).split())


def run(only: str | None, jobs: int) -> int:
    """Try them all, or those with `only` in their names; 1 where one survives."""
    chosen = [m for m in MUTANTS if not only or only in m.name]
    sound = caught(None) if not only else (False, False, "", "")
    if sound[:2] != (False, False):
        print(
            f"without any mutant: tests {'fail' if sound[0] else 'pass'} ({sound[2]}), verify "
            f"{'fails' if sound[1] else 'passes'} ({sound[3]})"
        )
        return 1
    survivors = unseen = 0
    print(f"{'mutant':44} {'file':22} {'tests':8} {'verify':8} first test that fails | what verify finds")
    with ThreadPoolExecutor(jobs) as pool:
        for mutant, (tests, verify, by, what) in zip(chosen, pool.map(caught, chosen), strict=True):
            survivors += not tests
            unseen += not verify
            print(
                f"{mutant.name:44} {mutant.file:22} {'caught' if tests else 'SURVIVES':8} "
                f"{'caught' if verify else 'SURVIVES':8} {by} | {what}",
                flush=True,
            )
    print(f"{len(chosen)} mutants, {survivors} survive the tests, {unseen} survive verify")
    return 1 if survivors or unseen else 0
