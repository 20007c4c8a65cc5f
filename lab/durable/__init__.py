"""The durable lab: one long function, killed after each thing it has written, and finished all the same."""
