"""A root lists one key twice for the timestamp and asks for two, which that key alone must not be."""

from repository import new_key


def attack(repo):
    twice = [repo.signers["timestamp"][0].public_key.keyid] * 2
    repo.edit("root", lambda signed: signed["roles"]["timestamp"].update(keyids=twice, threshold=2))
    repo.release_root()
    repo.release("timestamp")


def honest(repo):
    repo.set_keys("timestamp", [*repo.signers["timestamp"], new_key()], threshold=2)
    repo.release_root()
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata has 1 of the 2 valid signatures",
    "stored": {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 2, "timestamp": 2, "snapshot": 1, "targets": 1},
}
