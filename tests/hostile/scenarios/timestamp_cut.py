"""The connection is cut in the middle of the timestamp."""

from server import cut


def attack(repo):
    repo.release("timestamp")
    repo.fault("timestamp", cut(repo.bytes("timestamp"), after=200))


def honest(repo):
    repo.release("timestamp")


EXPECT = {
    "says": "cannot fetch",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
