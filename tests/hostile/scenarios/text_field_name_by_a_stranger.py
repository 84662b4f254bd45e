"""A stranger signs a root whose unknown field has a name of 300,000 letters: it is told by its signatures alone."""

from repository import new_key
from texts import TERMINAL, long


def attack(repo):
    repo.edit("root", lambda signed: signed.update({long("n", 300_000): TERMINAL}))
    repo.sign_with("root", new_key())
    repo.release_root()


def honest(repo):
    repo.edit("root", lambda signed: signed.update({long("n", 300_000): TERMINAL}))
    repo.release_root()


EXPECT = {
    "says": "root metadata has 0 of the 1 valid signatures",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1},
}
