"""A key that root does not name signs in the place of one that it does."""

from repository import new_key


def prepare(repo):
    repo.set_keys("timestamp", [new_key(), new_key()], threshold=2)


def attack(repo):
    repo.sign_with("timestamp", repo.signers["timestamp"][0], new_key())
    repo.release("timestamp")


def honest(repo):
    repo.sign_with("timestamp", new_key(), *repo.signers["timestamp"])
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata has 1 of the 2 valid signatures",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
