"""A field that the specification does not know is altered after signing: it is signed like any other."""


def attack(repo):
    repo.edit("timestamp", lambda signed: signed.update(note={"colour": ["green"]}))
    repo.edit_bytes("timestamp", lambda data: data.replace(b"green", b"black"))
    repo.release("timestamp")


def honest(repo):
    repo.edit("timestamp", lambda signed: signed.update(note={"colour": ["green"]}))
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata has 0 of the 1 valid signatures",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
