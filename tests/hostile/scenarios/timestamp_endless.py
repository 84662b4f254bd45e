"""The timestamp never ends."""

from server import endless


def attack(repo):
    repo.fault("timestamp", endless(b'{"signed":'))


def honest(repo):
    repo.release("timestamp")


TIMEOUT = 10
EXPECT = {
    "says": "timestamp metadata has 16385 bytes where 16384 are allowed",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
