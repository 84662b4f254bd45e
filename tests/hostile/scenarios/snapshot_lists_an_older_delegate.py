"""A new snapshot lists a delegated role at an older version."""


def prepare(repo):
    repo.delegate("products", ["products/*"])
    repo.begin()
    repo.release()


def attack(repo):
    repo.edit("snapshot", lambda signed: signed["meta"]["products.json"].update(version=1))
    repo.release("snapshot")


def honest(repo):
    repo.release("snapshot")


EXPECT = {
    "says": "snapshot metadata goes back: products.json was at version 2 and is offered at 1",
    "stored": {"root": 1, "timestamp": 3, "snapshot": 2, "targets": 2},
    "twin": {"root": 1, "timestamp": 3, "snapshot": 3, "targets": 2},
}
