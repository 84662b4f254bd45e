"""A few compressed kilobytes would become as many megabytes."""

import gzip

from server import whole


def attack(repo):
    repo.release("timestamp")
    bomb = gzip.compress(repo.bytes("timestamp") + b" " * 8 * 1024 * 1024)
    repo.fault("timestamp", whole(bomb, headers={"Content-Encoding": "gzip"}))


def honest(repo):
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata (cannot be read|has 16385 bytes)",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
