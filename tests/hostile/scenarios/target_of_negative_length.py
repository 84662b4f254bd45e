"""A target is listed with a length below zero."""


def attack(repo):
    repo.edit("targets", lambda signed: signed["targets"]["greeting.txt"].update(length=-1))
    repo.release()


def honest(repo):
    repo.release()


TARGET = "greeting.txt"
EXPECT = {
    "says": "targets metadata cannot be read",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
}
