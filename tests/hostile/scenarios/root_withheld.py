"""The server hides the next root from a new device whose own has expired, so that it trusts revoked keys for longer."""

from repository import SOON, YESTERDAY
from server import failing


def prepare(repo):
    repo.root.expires = YESTERDAY
    repo.begin()
    repo.root.expires = SOON
    repo.release_root()


def attack(repo):
    repo.fault("root", failing(404))


def honest(repo):
    repo.release("timestamp")


NEW_DEVICE = True
EXPECT = {
    "says": "root metadata expired",
    "stored": {"root": 1},
    "twin": {"root": 2, "timestamp": 2, "snapshot": 1, "targets": 1},
}
