"""The command engine: programs of the operating system as processes, each under a supervisor of its own."""
