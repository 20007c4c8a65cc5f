"""Runs one command, and sees to it that nothing of it is left. A program of its own, started anew for each command.

It imports little of the standard library and nothing else: it must start fast. It is told on its standard input what to
run (`wire.Spec`), then single bytes: `s` stop, `k` kill. The end of that pipe, or of the worker (a pidfd), means that
the worker is gone, and is a stop. It tells frames on its standard output: a letter, four bytes of length, a body.

What makes the end certain is the kernel: a child subreaper inherits whatever loses its parent below it. So as long as
anything of the command lives, it or an ancestor of it is a child of this program; no child left, nothing is left.
"""
