"""Root 3 is signed by the keys of root 1 and by its own, but not by those of root 2."""

from repository import new_key


def rotate_twice(repo):
    first = repo.signers["root"]
    repo.set_keys("root", [new_key()])
    repo.release_root()
    second = repo.signers["root"]
    repo.set_keys("root", [new_key()])
    return first, second


def attack(repo):
    first, _ = rotate_twice(repo)
    repo.release_root([*first, *repo.signers["root"]])
    repo.release_root()


def honest(repo):
    _, second = rotate_twice(repo)
    repo.release_root([*second, *repo.signers["root"]])
    repo.release_root()


EXPECT = {
    "says": "root metadata has 0 of the 1 valid signatures",
    "stored": {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 4, "timestamp": 1, "snapshot": 1, "targets": 1},
}
