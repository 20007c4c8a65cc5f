"""The numbered steps of the schema, forward only, and what they make (expected.txt)."""
