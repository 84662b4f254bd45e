"""A new snapshot lists older targets."""


def prepare(repo):
    repo.begin()
    repo.release()


def attack(repo):
    repo.edit("snapshot", lambda signed: signed["meta"]["targets.json"].update(version=1))
    repo.release("snapshot")


def honest(repo):
    repo.release("snapshot")


EXPECT = {
    "says": "snapshot metadata goes back: targets.json was at version 2 and is offered at 1",
    "stored": {"root": 1, "timestamp": 3, "snapshot": 2, "targets": 2},
    "twin": {"root": 1, "timestamp": 3, "snapshot": 3, "targets": 2},
}
