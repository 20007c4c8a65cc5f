"""Engines: they run the code of definitions of one kind."""
