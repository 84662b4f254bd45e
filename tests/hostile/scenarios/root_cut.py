"""The connection is cut in the middle of the next root."""

from server import cut


def attack(repo):
    repo.release_root()
    repo.fault("root", cut(repo.bytes("root"), after=500))


def honest(repo):
    repo.release_root()


EXPECT = {
    "says": "cannot fetch",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1},
}
