"""The timestamp comes byte by byte, each in time, all of them never."""

from server import slow


def attack(repo):
    repo.release("timestamp")
    repo.fault("timestamp", slow(repo.bytes("timestamp")))


def honest(repo):
    repo.release("timestamp")


TIMEOUT = 2
EXPECT = {
    "says": "timestamp.json: .*timeout",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
