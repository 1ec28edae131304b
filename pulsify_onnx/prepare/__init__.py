"""Batch model -> batch model: rewrites that come before the analysis of what is streamed."""
