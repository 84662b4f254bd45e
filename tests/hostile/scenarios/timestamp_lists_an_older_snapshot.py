"""A new timestamp lists an older snapshot."""


def prepare(repo):
    repo.begin()
    repo.release()


def attack(repo):
    repo.edit("timestamp", lambda signed: signed["meta"]["snapshot.json"].update(version=1))
    repo.release("timestamp")


def honest(repo):
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata goes back: snapshot.json was at version 2 and is offered at 1",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
    "twin": {"root": 1, "timestamp": 3, "snapshot": 2, "targets": 2},
}
