"""The server hides the next root behind an error; only 404 and 403 say that there is none."""

from server import failing


def attack(repo):
    repo.fault_at("metadata/2.root.json", failing(500))
    repo.release("timestamp")


def honest(repo):
    repo.fault_at("metadata/2.root.json", failing(403))
    repo.release("timestamp")


EXPECT = {
    "says": "the server answers 500",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
