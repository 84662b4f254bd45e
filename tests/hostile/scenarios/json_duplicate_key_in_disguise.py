"""A timestamp has `signed` twice, once written with an escape."""


def attack(repo):
    repo.edit_bytes("timestamp", lambda data: data.replace(b'"signed"', rb'"\u0073igned": {"version": 9}, "signed"'))
    repo.release("timestamp")


def honest(repo):
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata cannot be read: a key is there twice",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
