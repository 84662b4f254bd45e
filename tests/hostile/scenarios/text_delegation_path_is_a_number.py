"""A pattern of a delegation is a number, and its neighbours are an attacker's."""

from texts import REORDERED, long


def delegate(repo, name, **changes):
    repo.delegate("products", ["*"])
    repo.edit("targets", lambda signed: signed["delegations"]["roles"][0].update(changes | {"name": name}))


def attack(repo):
    delegate(repo, "products", paths=[long("["), REORDERED, 1])
    repo.release("targets")


def honest(repo):
    delegate(repo, "products", paths=[long("["), REORDERED])
    repo.release("targets")


EXPECT = {
    "says": "targets metadata cannot be read: (it does not have the form|a value of another type)",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
}
