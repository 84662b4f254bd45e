"""The version of a snapshot has 10,000 digits."""


def attack(repo):
    repo.edit_bytes("snapshot", lambda data: data.replace(b'"version": 2,', b'"version": ' + b"9" * 10_000 + b","))
    repo.release("snapshot")


def honest(repo):
    repo.edit("snapshot", lambda signed: signed.update(note=2**63 - 1))
    repo.release("snapshot")


EXPECT = {
    "says": "snapshot metadata cannot be read",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
}
