"""A new root is signed by the keys of the root before and not by its own."""

from repository import new_key


def attack(repo):
    old = repo.signers["root"]
    repo.set_keys("root", [new_key()])
    repo.release_root(old)


def honest(repo):
    repo.set_keys("root", [new_key()])
    repo.release_root()


EXPECT = {
    "says": "root metadata has 0 of the 1 valid signatures",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1},
}
