"""The decisions: everything that may happen to a process, as pure functions. Time is an argument."""
