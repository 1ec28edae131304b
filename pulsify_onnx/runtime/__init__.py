"""Runs a pulsed model from its sidecar alone."""
