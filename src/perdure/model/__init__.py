"""The nouns: frozen, dumb, made of plain data. What may happen to them is decided in `perdure.transitions`."""
