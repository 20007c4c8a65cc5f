"""One module per command (cancel and abandon share one); main.COMMANDS says which."""
