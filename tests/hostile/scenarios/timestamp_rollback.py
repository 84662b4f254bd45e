"""An older timestamp, rightly signed, is served again."""


def prepare(repo):
    repo.begin()
    repo.old = repo.bytes("timestamp")
    repo.release()


def attack(repo):
    repo.fault("timestamp", repo.old)


def honest(repo):
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata goes back: timestamp.json was at version 2 and is offered at 1",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
    "twin": {"root": 1, "timestamp": 3, "snapshot": 2, "targets": 2},
}
