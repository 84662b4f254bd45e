"""A new snapshot does not list the targets any more."""


def attack(repo):
    repo.edit("snapshot", lambda signed: signed["meta"].pop("targets.json"))
    repo.release("snapshot")


def honest(repo):
    repo.release("snapshot")


EXPECT = {
    "says": "snapshot metadata cannot be read: it does not list targets.json",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
}
