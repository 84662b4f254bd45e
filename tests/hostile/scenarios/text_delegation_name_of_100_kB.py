"""The targets delegate to a role whose name, as a file's, no disk could hold."""

from texts import long


def delegate(repo, name, **changes):
    repo.delegate("products", ["*"])
    repo.edit("targets", lambda signed: signed["delegations"]["roles"][0].update(changes | {"name": name}))


def attack(repo):
    delegate(repo, long("\u202e"))
    repo.release("targets")


def honest(repo):
    delegate(repo, "\u202e" * 20)
    repo.release("targets")


EXPECT = {
    "says": "targets metadata cannot be read: delegation 1 is to a role whose file name has 900011 bytes",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
}
