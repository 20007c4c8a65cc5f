"""The parts of the facade: definitions, handles, serving, and where a URL leads."""
