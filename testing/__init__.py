"""What tests and tools share: the oracle, random networks, twins, plans made by hand. Not shipped."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The root of the repository."""
