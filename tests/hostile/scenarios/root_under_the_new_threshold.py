"""A new root asks for two of its keys and is signed by one of them."""

from repository import new_key


def attack(repo):
    old = repo.signers["root"]
    repo.set_keys("root", [new_key(), new_key()], threshold=2)
    repo.release_root([*old, repo.signers["root"][0]])


def honest(repo):
    old = repo.signers["root"]
    repo.set_keys("root", [new_key(), new_key(), new_key()], threshold=2)
    repo.release_root([*old, *repo.signers["root"][:2]])


EXPECT = {
    "says": "root metadata has 1 of the 2 valid signatures",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1},
}
