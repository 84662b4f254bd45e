"""The server delays a timestamp until it has expired: by section 5.1 what counts is when the update began."""

from datetime import datetime, timedelta, timezone

from server import late


def attack(repo):
    repo.timestamp.expires = datetime.now(timezone.utc) + timedelta(seconds=4)
    repo.release("timestamp")
    repo.fault("timestamp", late(repo.bytes("timestamp"), repo.timestamp.expires + timedelta(seconds=0.2)))


def honest(repo):
    repo.release("timestamp")


TIMEOUT = 20
EXPECT = {
    "exit": 0,
    "says": "",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
