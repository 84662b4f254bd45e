"""A comment in a timestamp hides a second version from readers that take comments."""

from texts import MARKER, insert


def attack(repo):
    repo.edit_bytes("timestamp", insert(f'/* {MARKER} */ "version": 9'))
    repo.release("timestamp")


def honest(repo):
    repo.edit("timestamp", lambda signed: signed.update(note="/* */"))
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata cannot be read: it is no JSON",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
