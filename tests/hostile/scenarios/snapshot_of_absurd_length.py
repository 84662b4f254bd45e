"""A stolen timestamp key says that the snapshot has a terabyte."""

from server import endless


def attack(repo):
    repo.edit("timestamp", lambda signed: signed["meta"]["snapshot.json"].update(length=2**40))
    repo.release("snapshot")
    repo.fault("snapshot", endless(b"{"))


def honest(repo):
    repo.release("snapshot")


TIMEOUT = 10
EXPECT = {
    "says": "snapshot metadata has [0-9]+ bytes where 33554432 are allowed",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
}
