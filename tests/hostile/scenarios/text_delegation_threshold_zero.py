"""A role called so that it would clear the screen may sign without a key."""

from texts import REORDERED, TERMINAL


def delegate(repo, name, **changes):
    repo.delegate("products", ["*"])
    repo.edit("targets", lambda signed: signed["delegations"]["roles"][0].update(changes | {"name": name}))


def attack(repo):
    delegate(repo, TERMINAL + REORDERED, threshold=0)
    repo.release("targets")


def honest(repo):
    delegate(repo, TERMINAL, threshold=1)
    repo.release("targets")


EXPECT = {
    "says": "targets metadata cannot be read: the threshold of delegation 1 is 0",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
}
