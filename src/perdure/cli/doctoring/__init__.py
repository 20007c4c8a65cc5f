"""What `perdure doctor` makes of what it finds."""
