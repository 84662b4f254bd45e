"""A timestamp follows version 2 of the specification; what is new in version 1 changes nothing."""


def attack(repo):
    repo.edit("timestamp", lambda signed: signed.update(spec_version="2.0.0"))
    repo.release("timestamp")


def honest(repo):
    repo.edit("timestamp", lambda signed: signed.update(spec_version="1.99.0"))
    repo.release("timestamp")


EXPECT = {
    "says": "it follows another version of the specification than 1.x",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
