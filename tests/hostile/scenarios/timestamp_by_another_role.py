"""A timestamp is signed with the key of the snapshot."""


def attack(repo):
    repo.sign_with("timestamp", *repo.signers["snapshot"])
    repo.release("timestamp")


def honest(repo):
    repo.sign_with("timestamp", *repo.signers["timestamp"], *repo.signers["snapshot"])
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata has 0 of the 1 valid signatures",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
