"""A stolen snapshot key says that the targets have a terabyte."""

from server import endless


def attack(repo):
    repo.edit("snapshot", lambda signed: signed["meta"]["targets.json"].update(length=2**40))
    repo.release()
    repo.fault("targets", endless(b"{"))


def honest(repo):
    repo.release()


TIMEOUT = 10
EXPECT = {
    "says": "targets metadata has [0-9]+ bytes where 33554432 are allowed",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
}
