"""A rightly signed timestamp lists a snapshot by a hash that would clear the screen."""

from texts import REORDERED, TERMINAL


def attack(repo):
    repo.release("snapshot")
    repo.edit("timestamp", lambda signed: signed["meta"]["snapshot.json"].update(hashes={"sha256": TERMINAL * 100}))
    repo.release("timestamp")


def honest(repo):
    repo.release("snapshot")
    repo.edit("timestamp", lambda signed: signed["meta"]["snapshot.json"]["hashes"].update({TERMINAL: REORDERED}))
    repo.release("timestamp")


EXPECT = {
    "says": "snapshot metadata has not the hash that was signed",
    "stored": {"root": 1, "timestamp": 3, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 3, "snapshot": 2, "targets": 1},
}
