"""Labs: real operating-system processes on one file, killed, saturated and timed. `python -m lab --help`."""
