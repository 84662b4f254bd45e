"""A snapshot has a byte less than the timestamp lists, which lists no hash."""


def attack(repo):
    repo.edit("timestamp", lambda signed: signed["meta"]["snapshot.json"].pop("hashes"))
    repo.release("snapshot")
    repo.fault("snapshot", repo.bytes("snapshot").replace(b"\n ", b"\n", 1))


def honest(repo):
    repo.edit("timestamp", lambda signed: signed["meta"]["snapshot.json"].pop("hashes"))
    repo.release("snapshot")


EXPECT = {
    "says": "snapshot metadata has [0-9]+ bytes where [0-9]+ are allowed",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
}
