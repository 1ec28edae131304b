from __future__ import annotations

from testing.oracle import parse, rand, refused


def test_refuses_causal_conv_with_state():
    refused(
        parse(
            """<ir_version: 13, opset_import: ["": 27]> agraph (float[1,4,T] x) => (float[1,4,U] y) { y = CausalConvWithState(x, w) }""",
            w=rand(4, 1, 3),
        ),
        "onnxruntime cannot load opset 27 yet",
        axes={"x": 2},
        op_type="CausalConvWithState",
    )


def test_refuses_linear_attention():
    refused(
        parse("""<ir_version: 13, opset_import: ["": 27]> agraph (float[1,T,8] x) => (float[1,U,8] y) {
        y = LinearAttention<q_num_heads=2, kv_num_heads=2, update_rule="linear">(x, x, x) }"""),
        "onnxruntime cannot load opset 27 yet",
        axes={"x": 1},
        op_type="LinearAttention",
    )
