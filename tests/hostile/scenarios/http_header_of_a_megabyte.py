"""One header of the answer has a million characters; one of ten thousand is read over."""

from server import raw
from texts import long


def answer(length):
    return f"HTTP/1.1 200 OK\r\nX-Note: {long('x', length)}\r\n\r\n".encode()


def attack(repo):
    repo.release("timestamp")
    repo.fault("timestamp", raw(answer(1_000_000), repo.bytes("timestamp")))


def honest(repo):
    repo.release("timestamp")
    body = repo.bytes("timestamp")
    repo.fault("timestamp", raw(answer(10_000), body))


TIMEOUT = 10
EXPECT = {
    "says": "cannot fetch .*timestamp.json: response header is too big",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
