"""The server redirects to an address with control characters in it."""

from server import raw
from texts import TERMINAL


def attack(repo):
    repo.release("timestamp")
    repo.fault("timestamp", raw(f"HTTP/1.1 302 Found\r\nLocation: http://{TERMINAL}/\r\n\r\n".encode()))


def honest(repo):
    repo.release("timestamp")


TIMEOUT = 10
EXPECT = {
    "says": "cannot fetch .*timestamp.json: ",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
