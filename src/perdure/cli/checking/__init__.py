"""`perdure check`: reads the code of processes and finds what replay would not forgive. It runs nothing of it."""
