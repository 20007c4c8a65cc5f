"""The contract: small protocols whose docstrings are the specification. Stores and engines implement them."""
