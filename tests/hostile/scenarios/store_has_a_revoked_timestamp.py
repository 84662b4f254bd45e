"""The power failed between new root and forgotten timestamp, and the revoked key goes on signing timestamps."""

from repository import new_key


def prepare(repo):
    repo.begin()
    repo.stolen = repo.signers["timestamp"][0]
    repo.timestamp.version = 999
    repo.release("timestamp")
    repo.old = repo.bytes("timestamp")
    repo.set_keys("timestamp", [new_key()])
    repo.release_root()
    repo.timestamp.version = 1
    repo.release("timestamp")


def store(repo):
    return {"root": repo.bytes("root"), "timestamp": repo.old}


def attack(repo):
    repo.sign_with("timestamp", repo.stolen)
    repo.timestamp.version = 1000
    repo.release("timestamp")


def honest(repo):
    repo.release("timestamp")


NEW_DEVICE = True
EXPECT = {
    "says": "timestamp metadata has 0 of the 1 valid signatures",
    "stored": {"root": 2, "timestamp": 1000},
    "twin": {"root": 2, "timestamp": 3, "snapshot": 1, "targets": 1},
}
