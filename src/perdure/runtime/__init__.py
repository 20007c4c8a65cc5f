"""The hands: driving, running, waiting, watching. Rules are in `perdure.transitions`; what is stored, in `stores`."""
