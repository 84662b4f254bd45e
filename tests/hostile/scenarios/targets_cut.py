"""The connection is cut in the middle of the targets."""

from server import cut


def attack(repo):
    repo.release()
    repo.fault("targets", cut(repo.bytes("targets"), after=300))


def honest(repo):
    repo.release()


EXPECT = {
    "says": "cannot fetch",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
}
