"""Networks as exporters write them, and a check of their streams that knows the package by its README and docs
alone.
"""
