"""The server says that it has no targets."""

from server import failing


def attack(repo):
    repo.release()
    repo.fault("targets", failing(404))


def honest(repo):
    repo.release()


EXPECT = {
    "says": "targets metadata is not there",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
}
