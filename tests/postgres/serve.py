"""A program that has one server for as long as its input is open: prints the URL, and leaves nothing behind."""

from __future__ import annotations

import sys

from lab.cluster import Cluster


def main() -> None:
    cluster = Cluster()
    try:
        cluster.start()
        print(cluster.url, flush=True)
        sys.stdin.read()
    finally:
        cluster.remove()


if __name__ == "__main__":
    main()
