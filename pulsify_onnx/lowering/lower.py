"""Plan -> graph. Knows the vocabulary of `plan`, no operator and no delay arithmetic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.facts import Mirror, Padding, Running, ShapeTensor, Static, Stream, WindowValue
from pulsify_onnx.algebra.hidden import TimedMask
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.places import NOW, Here, Where, inside
from pulsify_onnx.algebra.plan import (
    Count,
    Dims,
    Expr,
    Frames,
    Offset,
    Op,
    Past,
    Plan,
    Position,
    QueryKeyRead,
    Ref,
    Start,
    State,
    Step,
    Window,
    leaves,
)
from pulsify_onnx.algebra.plan_checks import check_plan
from pulsify_onnx.arrays import Const
from pulsify_onnx.lowering.check import check_graph
from pulsify_onnx.lowering.states import SOURCE, Draft, Lowered, LoweredState
from pulsify_onnx.lowering.writer import TO_END
from pulsify_onnx.model.load import Source
from pulsify_onnx.passes.histories import Histories, behind, mirrors, on_arrival, timed_mask
from pulsify_onnx.passes.liveness import live
from pulsify_onnx.passes.quantised_histories import quantised_histories


def lower(plan: Plan, source: Source, pulse: int | None) -> Lowered:
    """The pulsed model for `pulse` base frames (None: a symbolic pulse)."""
    plan = _checked(quantised_histories(plan, source), plan, "quantised histories")
    plan = _checked(live(plan), plan, "liveness")
    return check_graph(_Lowering(plan, source, pulse).run(), plan)


def _checked(plan: Plan, before: Plan, stage: str) -> Plan:
    """`plan`, which keeps the rules where it is another one than `before`."""
    if plan is not before:
        check_plan(plan, stage)
    return plan


class _Lowering(Draft):
    def __init__(self, plan: Plan, source: Source, pulse: int | None):
        super().__init__(plan, source, pulse)
        self.producer = plan.producer()
        self.histories = Histories(plan)
        self.lines: dict[tuple[str, TimedMask | None], tuple[ir.Value, int]] = {}

    # the graph

    def run(self) -> Lowered:
        for name in self.plan.inputs:
            fact = self.plan.wires[name]
            assert isinstance(fact, (Static, Stream))
            shape = [self._label(d) for d in fact.shape]
            if isinstance(fact, Stream):
                shape[fact.axis] = self._frames_label(fact.rate)
            value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(fact.dtype))
            output = dict(self.plan.options.states).get(name)
            if output is None:
                self.inputs.append(value)
            else:
                value.shape = ir.Shape(map(self._label, self._left(output).shape))
            self.values[name] = self._settled(value, fact if output is None else self._left(output))
        for step in self.plan.steps:
            if not any(self.histories.lazy(w) for w in step.wires):
                self._step(step)
        carried = {out for _, out in self.plan.options.states}
        outputs = [self._output(name) for name in self.plan.outputs if name not in carried]
        self.states[:0] = [self._fed_back(*pair) for pair in self.plan.options.states]
        if self.plan.ends:
            self._valid_frames()
        return self._finish(outputs)

    def _fed_back(self, name: str, output: str) -> LoweredState:
        """A state of the source: it keeps its names and its shape."""
        past, present = self.values[name], self._output(output)
        left = self._left(output)
        self._shared_state(left.shape)
        return LoweredState(past, present, left.dtype, tuple(map(self._label, left.shape)), output, SOURCE, left.exact)

    def _left(self, output: str) -> Running:
        """What a state of the source becomes."""
        left = self.plan.facts[output]
        assert isinstance(left, Running)
        return left

    def _step(self, step: Step) -> None:
        self.node = step.node
        for state in step.states:
            self._declare(state, self._order(step, state))
        for wire, expr in zip(step.wires, step.exprs):
            self.values[wire] = self._settled(self._named(self._eval(expr, NOW), wire), self.plan.wires[wire])
        for state in step.states:
            self._present(state.name, self._eval(state.next, NOW), state)

    def _order(self, step: Step, state: State) -> tuple[Length, Length] | None:
        """Axes merged with the batch in a state: as in what the step reads."""
        merged = [d for d in state.shape if d.constant is None and str(d) != self._batch()]
        if not merged:
            return None
        found = (self.emit.order(self._eval(leaf, NOW), merged[0]) for leaf in leaves(step) if isinstance(leaf, Window))
        return next((order for order in found if order is not None), None)

    def _named(self, value: ir.Value, wire: str) -> ir.Value:
        own = (value.name or "").startswith("pulsify/") and value.const_value is None and value.producer() is not None
        if own and wire not in self.plan.outputs and wire not in self.plan.inputs:
            value.name = self.emit.name(wire)
        return value

    def _output(self, name: str) -> ir.Value:
        if name in self.plan.inputs:
            return self.values[name]
        fact, self.node = self.plan.facts[name], name
        if isinstance(fact, Stream):
            value = self._eval(Window(fact.wire, 0, Frames(fact.rate)), NOW)
            shape = [self._label(d) for d in fact.shape]
            shape[fact.axis] = self._frames_label(fact.rate)
        else:
            assert isinstance(fact, (Static, Running, WindowValue))
            value = self._eval(Ref(fact.wire), NOW)
            shape = [self._label(d) for d in fact.shape]
        value = self.emit.whole(value)
        taken = (
            value.producer() is None
            or not (value.name or "").startswith("pulsify/")
            or value.name in self.plan.outputs
            or any(s.output is value for s in self.states)
        )
        if taken:
            value = self.graph.passed_on(value, "output")
        value.name = name
        value.type, value.shape = ir.TensorType(fact.dtype), ir.Shape(shape)
        return value

    def _finish(self, outputs: list[ir.Value]) -> Lowered:
        made = [s for s in self.states if s.role != SOURCE]
        width = max(3, len(str(max(0, len(made) - 1))))
        for k, state in enumerate(made):
            tag = (
                "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in state.input.name or "").strip(
                    "_"
                )
                or "state"
            )
            state.input.name, state.output.name = self.emit.names(
                f"past_{k:0{width}d}_{tag}", f"present_{k:0{width}d}_{tag}"
            )
        self.graph.prune({*outputs, *(s.output for s in self.states)})
        graph = ir.Graph(
            [*self.inputs, *self.controls, *(s.input for s in self.states)],
            [*outputs, *(s.output for s in self.states)],
            nodes=self.graph.nodes,
            initializers=[v for v in self.graph.initializers.values() if v.uses()],
            opset_imports=self._opsets(),
            name=self.source.model.graph.name or "pulsed",
        )
        model = ir.Model(graph, ir_version=max(self.source.model.ir_version, 4), producer_name="pulsify-onnx")
        model.metadata_props.update(self.source.model.metadata_props)
        return Lowered(
            model,
            tuple(self.states),
            self._batch(),
            tuple(self.emit.shared),
            self.valid_frames if self.controls else None,
        )

    def _opsets(self) -> dict[str, int]:
        own = self.source.model.opset_imports
        return {"": self.emit.opset, **{d: own.get(d, 1) for d in sorted(self.graph.domains)}}

    # expressions

    def _eval(self, expr: Expr | None, here: Where) -> ir.Value:
        key = (expr, here)
        if key not in self.memo:
            self.memo[key] = self._compute(expr, here)
        return self.memo[key]

    def _compute(self, expr: Expr | None, here: Where) -> ir.Value:
        if isinstance(expr, Const):
            return self.emit.constant(expr)
        if isinstance(expr, Ref):
            return self._static(expr.wire)
        if isinstance(expr, Window):
            return self._window(expr, here.side(expr.role))
        if isinstance(expr, QueryKeyRead):
            return self._at(expr.wire, inside(expr, here))
        if isinstance(expr, Position):
            side = here.side(expr.role)
            return self._position(expr.rate, int(expr.delay) + side.back, Frames(expr.rate, expr.extra + side.extra))
        if isinstance(expr, Offset):
            return self._offsets(expr.rate, here.side(0))
        if isinstance(expr, Start):
            return self._start(expr.rate, int(expr.delay) + here.side(0).back)
        if isinstance(expr, Count):
            return self._length(expr.length)
        if isinstance(expr, Dims):
            return self._dims(expr.dims, here)
        if isinstance(expr, Past):
            return self._past(expr.state)
        assert isinstance(expr, Op)
        inputs = [None if e is None else self._eval(e, here) for e in expr.inputs]
        while inputs and inputs[-1] is None:
            inputs.pop()
        return self.emit.op(
            expr.op_type,
            *inputs,
            domain=expr.domain,
            outputs=expr.outputs,
            rewire=self._rewired,
            node_name=self.node,
            **dict(expr.attributes),
        )[expr.index]

    def _rewired(self, graph: ir.Graph) -> ir.Graph:
        """A copy of a subgraph that reads outer values of the pulsed graph."""
        copy = graph.clone(allow_outer_scope_values=True)
        self._rewire(copy, set())
        return copy

    def _rewire(self, graph: ir.Graph, own: set[str]) -> None:
        own = own | {v.name or "" for v in graph.inputs} | set(graph.initializers)
        for node in graph:
            for k, value in enumerate(node.inputs):
                if value is not None and value.name and value.name not in own:
                    fact = self.plan.facts.get(value.name)
                    node.replace_input_with(
                        k, self.emit.whole(self._static(fact.wire if fact is not None else value.name))
                    )
            for attr in node.attributes.values():
                if attr.type == ir.AttributeType.GRAPH:
                    self._rewire(attr.as_graph(), own)
            own |= {v.name or "" for v in node.outputs}

    def _static(self, wire: str) -> ir.Value:
        if wire in self.values:
            return self.values[wire]
        if wire in self.producer and self.producer[wire].deferred:
            return self._at(wire, NOW)
        initializer = self.source.model.graph.initializers.get(wire)
        if initializer is not None and initializer.const_value is not None:
            tensor = initializer.const_value
            name = wire
            if wire in self.plan.outputs:
                name = self.emit.name(f"pulsify/{wire}")
                tensor = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=name)  # the source's own would be renamed
            value = ir.Value(
                name=name, const_value=tensor, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype)
            )
            self.graph.initializers[name] = value
        else:
            fact = self.plan.facts.get(wire)
            if isinstance(fact, ShapeTensor):
                raise AssertionError(f"{wire}: a length is used as a value")
            assert isinstance(fact, Static) and fact.value is not None, f"{wire} has no value"
            value = self.emit.constant(fact.value)
        self.values[wire] = value
        return value

    def _window(self, w: Window, here: Here) -> ir.Value:
        x = self._stream(w.wire)
        back, extra = int(w.back) + here.back, int(w.frames.extra) + here.extra
        mask = timed_mask(w)
        if mask is not None and mirrors(w):
            return self._mirrored(w, mask, x, back, extra)
        if self.histories.lazy(w.wire):
            value = self._at(w.wire, Here(back, extra))
            return (
                value
                if mask is None
                else self._masked(value, x, replace(mask, arrival=False), back, Frames(x.rate, extra))
            )
        line, history = self._line(*self.histories.read_from(w.wire, on_arrival(w), back))
        start, end = history - back, extra - back
        value = self.emit.slice(line, x.axis, start, end if end < 0 else TO_END)
        if mask is not None and not mask.arrival:
            return self._masked(value, x, mask, back, Frames(x.rate, extra))
        return self.emit.measure(value, self._pulsed(x, extra))

    def _mirrored(self, w: Window, mask: TimedMask, x: Stream, back: int, extra: int) -> ir.Value:
        """A window whose frames before the first and after the last real one are looked up among these."""
        before = behind(w, back)
        whole = Frames(x.rate, before)
        seen = self._window(Window(w.wire, before, whole), NOW)
        position = self._position(x.rate, back, Frames(x.rate, extra))
        low = self.emit.constant(np.asarray(mask.low, np.int64))
        edge = isinstance(mask.border, Mirror) and mask.border.edge
        if mask.end:
            high = self.emit.one("Sub", self._length(mask.high), self.emit.constant(np.asarray(1, np.int64)))
            position = (
                self.emit.one("Min", position, high)
                if edge
                else self.emit.one("Sub", high, self.emit.one("Abs", self.emit.one("Sub", high, position)))
            )
        if mask.start:
            position = (
                self.emit.one("Max", position, low)
                if edge
                else self.emit.one("Add", low, self.emit.one("Abs", self.emit.one("Sub", position, low)))
            )
        index = self.emit.one("Sub", position, self._start(x.rate, before))
        last = self.emit.one("Sub", self._frames_value(whole), self.emit.constant(np.asarray(1, np.int64)))
        index = self.emit.one("Min", self.emit.one("Max", index, self.emit.constant(np.asarray(0, np.int64))), last)
        return self.emit.one("Gather", seen, index, axis=x.axis)

    def _at(self, wire: str, here: Where) -> ir.Value:
        """A positional wire, a deferred one or a pair, computed for the frames of one reader."""
        step = self.producer[wire]
        value = self._eval(step.exprs[step.wires.index(wire)], here)
        if not step.deferred:
            return self._settled(value, self.plan.wires[wire])
        return self._settled(
            value if here != NOW else self._named(value, wire), self.plan.wires[wire], here.side(0).extra
        )

    def _line(self, wire: str, mask: TimedMask | None) -> tuple[ir.Value, int]:
        """The tapped delay line of a wire: its history and this pulse, and how long the history is."""
        if (wire, mask) not in self.lines:
            x = self._stream(wire)
            value = self.values[wire]
            if mask is not None:
                value = self._masked(value, x, mask, 0, Frames(x.rate))
            history = self.histories.of(wire, mask)
            begun = self.producer[wire].history if wire in self.producer else ""
            if begun:
                value, history = self._resumed(wire, x, value, begun, history)
            elif history > 0:
                value = self._delayed(wire, x, value, history, mask.border if mask is not None else None)
            self.lines[wire, mask] = (value, history)
        return self.lines[wire, mask]

    def _resumed(self, wire: str, x: Stream, value: ir.Value, cache: str, history: int) -> tuple[ir.Value, int]:
        """A line whose newest history is a cache that the caller carries; what goes back further is a state."""
        count = -int(x.delay)
        line = self.emit.one("Concat", self._static(cache), value, axis=x.axis)
        if history <= count:
            return line, count
        older = self._delayed(wire, x, self.emit.slice(line, x.axis, 0, -count), history - count)
        newest = self.emit.slice(line, x.axis, -count, TO_END)
        return self.emit.one("Concat", older, newest, axis=x.axis), history

    def _delayed(self, wire: str, x: Stream, value: ir.Value, history: int, border: Padding | None = None) -> ir.Value:
        """A line with a state in front, which begins with frames of the `border`, zeros without one."""
        shape = (*x.shape[: x.axis], Length.of(history), *x.shape[x.axis + 1 :])
        moving = next((d for d in shape if d.constant is None), None)
        order = None if moving is None else self.emit.order(value, moving)
        node, self.node = self.node, self.producer[wire].node if wire in self.producer else wire
        packing = self._packing(shape, order, wire)
        dims = packing.state
        if moving is None and self.emit.per_row(value):
            dims = (self._batch(), *dims)
        past = self.emit.state(
            ir.Value(name=wire, shape=ir.Shape(dims), type=ir.TensorType(x.dtype)), dims, len(packing.split)
        )
        line = self.emit.one(
            "Concat", self._begun(packing.unpack(self.emit, past), border, x.dtype), value, axis=x.axis
        )
        present = self.emit.slice(line, x.axis, -history, TO_END)
        self._remember(past, packing.pack(self.emit, present), x.dtype, dims, "history")
        self.node = node
        return line
