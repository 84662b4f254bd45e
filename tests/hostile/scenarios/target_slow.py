"""The target comes byte by byte, each in time, all of them never."""

from server import slow


def prepare(repo):
    repo.add_target("big.bin", b"x" * 500)


def attack(repo):
    repo.fault_at(repo.target_path("big.bin"), slow(b"x" * 500))


def honest(repo):
    pass


TARGET = "big.bin"
TIMEOUT = 2
EXPECT = {
    "says": "timeout",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
}
