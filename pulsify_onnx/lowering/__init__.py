"""Plan -> graph: knows the vocabulary of plans, and no operator."""
