"""A text in a timestamp is no UTF-8."""


def attack(repo):
    repo.edit("timestamp", lambda signed: signed.update(note="NOTE"))
    repo.edit_bytes("timestamp", lambda data: data.replace(b"NOTE", b"\xff\xfe"))
    repo.release("timestamp")


def honest(repo):
    repo.edit("timestamp", lambda signed: signed.update(note="d\u00e9j\u00e0"))
    repo.edit_bytes("timestamp", lambda data: data.replace(rb"d\u00e9j\u00e0", "d\u00e9j\u00e0".encode()))
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata cannot be read",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
