"""The connection is cut in the middle of the target."""

from server import cut


def attack(repo):
    repo.fault_at(repo.target_path("greeting.txt"), cut(b"hello", after=3))


def honest(repo):
    pass


TARGET = "greeting.txt"
EXPECT = {
    "says": "cannot fetch",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
}
