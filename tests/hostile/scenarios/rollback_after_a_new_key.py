"""Root adds a timestamp key and keeps the old one, which revokes nothing: an older timestamp is still older."""

from repository import new_key


def prepare(repo):
    repo.begin()
    repo.old = repo.bytes("timestamp")
    repo.release()


def add_key(repo):
    repo.set_keys("timestamp", [*repo.signers["timestamp"], new_key()])
    repo.release_root()


def attack(repo):
    add_key(repo)
    repo.fault("timestamp", repo.old)


def honest(repo):
    add_key(repo)
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata goes back: timestamp.json was at version 2 and is offered at 1",
    "stored": {"root": 2, "timestamp": 2, "snapshot": 2, "targets": 2},
    "twin": {"root": 2, "timestamp": 3, "snapshot": 2, "targets": 2},
}
