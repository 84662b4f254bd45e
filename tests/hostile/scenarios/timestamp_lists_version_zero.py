"""A timestamp lists the snapshot at version 0."""


def attack(repo):
    repo.edit("timestamp", lambda signed: signed["meta"]["snapshot.json"].update(version=0))
    repo.release("timestamp")


def honest(repo):
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata cannot be read: it lists snapshot.json at version 0",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
