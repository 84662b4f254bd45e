"""The target never ends."""

from server import endless


def attack(repo):
    repo.fault_at(repo.target_path("greeting.txt"), endless(b"hello"))


def honest(repo):
    pass


TARGET = "greeting.txt"
TIMEOUT = 10
EXPECT = {
    "says": 'target "greeting.txt" has 6 bytes where 5 are allowed',
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
}
