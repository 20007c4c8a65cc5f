"""The durable lab: one long function, killed after every single thing it has written down, and finished all the same."""
