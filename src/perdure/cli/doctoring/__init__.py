"""What `perdure doctor` makes of what it finds in a PostgreSQL database."""
