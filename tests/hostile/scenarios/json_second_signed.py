"""A file has two members `signed`: the one that was signed, and before it the attacker's."""


def attack(repo):
    repo.edit_bytes("timestamp", lambda data: data.replace(b'"signatures"', b'"signed": {"version": 9}, "signatures"'))
    repo.release("timestamp")


def honest(repo):
    repo.edit_envelope("timestamp", lambda file: file.update(note={"version": 9}))
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata cannot be read: a key is there twice",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
