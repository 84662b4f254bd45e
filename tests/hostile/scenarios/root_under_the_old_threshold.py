"""One of the two old keys that are needed is stolen, and signs a root with a key of the thief's."""

from repository import new_key


def prepare(repo):
    repo.set_keys("root", [new_key(), new_key()], threshold=2)


def attack(repo):
    stolen = repo.signers["root"][0]
    repo.set_keys("root", [new_key()])
    repo.release_root([stolen, *repo.signers["root"]])


def honest(repo):
    repo.set_keys("root", [new_key()])
    repo.release_root()


EXPECT = {
    "says": "root metadata has 1 of the 2 valid signatures",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1},
}
