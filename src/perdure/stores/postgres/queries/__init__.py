"""The named statements of the store."""
