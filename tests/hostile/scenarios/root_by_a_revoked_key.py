"""A root key that was stolen and then revoked signs the next root, which names it again."""

from repository import new_key


def prepare(repo):
    repo.begin()
    repo.stolen = repo.signers["root"]
    repo.set_keys("root", [new_key()])
    repo.release_root()


def attack(repo):
    repo.set_keys("root", repo.stolen)
    repo.release_root(repo.stolen)


def honest(repo):
    repo.release_root(repo.signers["root"])


EXPECT = {
    "says": "root metadata has 0 of the 1 valid signatures",
    "stored": {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 3, "timestamp": 1, "snapshot": 1, "targets": 1},
}
