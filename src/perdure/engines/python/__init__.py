"""The Python engine: ordinary functions as processes."""
