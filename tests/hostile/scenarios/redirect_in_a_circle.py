"""The server sends the client from the timestamp to the timestamp."""

from server import redirect


def attack(repo):
    repo.fault("timestamp", redirect(f"{repo.site.url}/metadata/timestamp.json"))


def honest(repo):
    repo.release("timestamp")


EXPECT = {
    "says": "redirect",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
