"""Targets are signed with the key of a role that they delegate to."""


def prepare(repo):
    repo.delegate("products", ["products/*"])


def attack(repo):
    repo.sign_with("targets", *repo.signers["products"])
    repo.release("targets")


def honest(repo):
    repo.release("targets")


EXPECT = {
    "says": "the targets metadata has 0 of the 1 valid signatures",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
}
