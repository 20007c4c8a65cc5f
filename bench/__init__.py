"""Benchmarks: what Perdure does, beside what the disk and SQLite allow in the same run.

Run them with `python -m bench sqlite`. Every figure is one JSON line. A machine is never as quiet as one thinks, so a
figure of ours and its raw limit are measured in turns, and what counts is the ratio of the pairs.
"""
