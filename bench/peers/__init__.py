"""Other libraries doing the same work, each in an interpreter that has it: `python -m bench … --peer NAME=PYTHON`."""
