"""Lanes of a batch in a pulsed graph: where every tensor has them, and how operators move them."""
