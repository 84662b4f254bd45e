"""One of two keys signs twice in the place of the other."""

from repository import new_key


def prepare(repo):
    repo.set_keys("timestamp", [new_key(), new_key()], threshold=2)


def attack(repo):
    signer = repo.signers["timestamp"][0]
    repo.sign_with("timestamp", signer, signer)
    repo.release("timestamp")


def honest(repo):
    repo.release("timestamp")


EXPECT = {
    "says": "among the signatures twice",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
