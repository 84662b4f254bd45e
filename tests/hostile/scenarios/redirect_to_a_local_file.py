"""The server sends the client to a file of the device's own."""

from server import redirect


def attack(repo):
    repo.fault("timestamp", redirect("file:///etc/hostname"))


def honest(repo):
    repo.release("timestamp")


EXPECT = {
    "says": "cannot fetch|is not there",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
