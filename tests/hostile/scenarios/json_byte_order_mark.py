"""A timestamp begins with a byte order mark; within a text it is a character like any other."""


def attack(repo):
    repo.edit_bytes("timestamp", lambda data: b"\xef\xbb\xbf" + data)
    repo.release("timestamp")


def honest(repo):
    repo.edit("timestamp", lambda signed: signed.update({"\ufeff": "\ufeff"}))
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata cannot be read: it is no JSON at line 1, column 1",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
