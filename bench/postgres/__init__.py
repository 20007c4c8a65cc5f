"""Perdure on PostgreSQL, beside the same rows in plain asyncpg, and beside peers."""
