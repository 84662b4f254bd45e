"""A text in a root holds NUL and ESC as they are, where JSON asks for an escape."""

from texts import TERMINAL


def attack(repo):
    repo.edit("root", lambda signed: signed.update(note="NOTE"))
    repo.edit_bytes("root", lambda data: data.replace(b"NOTE", TERMINAL.encode() + b"\x00"))
    repo.release_root()


def honest(repo):
    repo.edit("root", lambda signed: signed.update(note=TERMINAL + "\x00"))
    repo.release_root()


EXPECT = {
    "says": "root metadata cannot be read: it is no JSON",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1},
}
