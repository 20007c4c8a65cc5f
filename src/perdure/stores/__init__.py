"""Stores: they load and persist. Nothing here decides what may happen to a process."""
