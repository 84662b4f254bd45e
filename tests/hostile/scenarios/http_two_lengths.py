"""The answer has two lengths, one of half a file."""

from server import raw

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\nContent-Length: 91\r\n\r\n"


def attack(repo):
    repo.release("timestamp")
    repo.fault("timestamp", raw(HEAD, repo.bytes("timestamp")))


def honest(repo):
    repo.release("timestamp")


TIMEOUT = 10
EXPECT = {
    "says": "cannot fetch .*timestamp.json: .*content-length",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
