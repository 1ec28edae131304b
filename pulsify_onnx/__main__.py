"""``python -m pulsify_onnx``."""

from pulsify_onnx.cli import main

main()
