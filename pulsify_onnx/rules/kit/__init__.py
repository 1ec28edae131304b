"""What rules are made of: views of a node, types of results, combinators, running values, gates, masks."""
