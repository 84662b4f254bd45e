"""The letters of a signed text are put together otherwise: the same to the eye and to who normalises, other bytes."""


def attack(repo):
    repo.edit("targets", lambda signed: signed.update(note="caf\u00e9"))
    repo.edit_bytes("targets", lambda data: data.replace(rb"\u00e9", rb"e\u0301"))
    repo.release("targets")


def honest(repo):
    repo.edit("targets", lambda signed: signed.update(note="cafe\u0301 caf\u00e9"))
    repo.release("targets")


EXPECT = {
    "says": "targets metadata has 0 of the 1 valid signatures",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
}
