"""The order of the stages, from a model to a pulsed model."""
