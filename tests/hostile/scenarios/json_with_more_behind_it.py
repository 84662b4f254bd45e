"""Behind the signed file stands another; white space is no harm."""


def attack(repo):
    repo.edit_bytes("timestamp", lambda data: data + data)
    repo.release("timestamp")


def honest(repo):
    repo.edit_bytes("timestamp", lambda data: b"\n\t " + data + b" \r\n\n")
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata cannot be read",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
