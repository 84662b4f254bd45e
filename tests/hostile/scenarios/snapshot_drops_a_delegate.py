"""A new snapshot does not list a delegated role any more that it listed before."""


def prepare(repo):
    repo.delegate("products", ["products/*"])


def attack(repo):
    repo.edit("snapshot", lambda signed: signed["meta"].pop("products.json"))
    repo.release("snapshot")


def honest(repo):
    repo.release("snapshot")


EXPECT = {
    "says": "snapshot metadata goes back: products.json was at version 1",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
}
