"""A snapshot is signed with the key of the timestamp."""


def attack(repo):
    repo.sign_with("snapshot", *repo.signers["timestamp"])
    repo.release("snapshot")


def honest(repo):
    repo.sign_with("snapshot", *repo.signers["timestamp"], *repo.signers["snapshot"])
    repo.release("snapshot")


EXPECT = {
    "says": "snapshot metadata has 0 of the 1 valid signatures",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
}
