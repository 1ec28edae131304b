"""Batch against stream, in onnxruntime."""
