"""A timestamp does not list the snapshot."""


def attack(repo):
    repo.edit("timestamp", lambda signed: signed.update(meta={}))
    repo.release("timestamp")


def honest(repo):
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata cannot be read: it does not list snapshot.json",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
