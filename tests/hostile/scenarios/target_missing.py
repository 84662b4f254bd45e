"""The server says that it has no such target."""

from server import failing


def attack(repo):
    repo.fault_at(repo.target_path("greeting.txt"), failing(404))


def honest(repo):
    pass


TARGET = "greeting.txt"
EXPECT = {
    "says": "greeting.txt is not there",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
}
