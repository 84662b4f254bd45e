"""One of two keys that are needed signs targets."""

from repository import new_key


def prepare(repo):
    repo.set_keys("targets", [new_key(), new_key(), new_key()], threshold=2)


def attack(repo):
    repo.sign_with("targets", repo.signers["targets"][2])
    repo.release()


def honest(repo):
    repo.sign_with("targets", repo.signers["targets"][2], repo.signers["targets"][0])
    repo.release()


EXPECT = {
    "says": "the targets metadata has 1 of the 2 valid signatures",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
}
