"""A file is nested so deeply that a parser runs out of stack."""


def attack(repo):
    repo.edit_bytes("timestamp", lambda data: b"[" * 16_000)
    repo.release("timestamp")


def honest(repo):
    note = []
    for _ in range(50):
        note = [note]
    repo.edit("timestamp", lambda signed: signed.update(note=note))
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata cannot be read",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
