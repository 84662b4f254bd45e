"""A new root is signed by its own keys and not by those of the root before."""

from repository import new_key


def attack(repo):
    repo.set_keys("root", [new_key()])
    repo.release_root(repo.signers["root"])


def honest(repo):
    repo.set_keys("root", [new_key()])
    repo.release_root()


EXPECT = {
    "says": "root metadata has 0 of the 1 valid signatures",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1},
}
