"""A targets key that was stolen and then revoked signs targets."""

from repository import new_key


def prepare(repo):
    repo.begin()
    repo.stolen = repo.signers["targets"][0]
    repo.set_keys("targets", [new_key()])
    repo.release_root()
    repo.release()


def attack(repo):
    repo.sign_with("targets", repo.stolen)
    repo.release()


def honest(repo):
    repo.release()


EXPECT = {
    "says": "the targets metadata has 0 of the 1 valid signatures",
    "stored": {"root": 2, "timestamp": 3, "snapshot": 3, "targets": 2},
    "twin": {"root": 2, "timestamp": 3, "snapshot": 3, "targets": 3},
}
