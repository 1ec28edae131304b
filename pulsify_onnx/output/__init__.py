"""Files appear whole or not at all."""
