"""A timestamp key that was stolen and then revoked signs a timestamp."""

from repository import new_key


def prepare(repo):
    repo.begin()
    repo.stolen = repo.signers["timestamp"][0]
    repo.set_keys("timestamp", [new_key()])
    repo.release_root()
    repo.release("timestamp")


def attack(repo):
    repo.sign_with("timestamp", repo.stolen)
    repo.release("timestamp")


def honest(repo):
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata has 0 of the 1 valid signatures",
    "stored": {"root": 2, "timestamp": 2, "snapshot": 1, "targets": 1},
    "twin": {"root": 2, "timestamp": 3, "snapshot": 1, "targets": 1},
}
