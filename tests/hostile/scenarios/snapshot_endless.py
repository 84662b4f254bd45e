"""The snapshot never ends, and the timestamp says how long it is."""

from server import endless


def attack(repo):
    repo.release("snapshot")
    repo.fault("snapshot", endless(repo.bytes("snapshot")))


def honest(repo):
    repo.release("snapshot")


TIMEOUT = 10
EXPECT = {
    "says": "snapshot metadata has [0-9]{3,4} bytes where [0-9]{3,4} are allowed",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
}
