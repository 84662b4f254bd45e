"""The status of the answer has four digits, the first three of which are a success."""

from server import raw


def attack(repo):
    repo.release("timestamp")
    repo.fault("timestamp", raw(b"HTTP/1.1 2000 OK\r\n\r\n", repo.bytes("timestamp")))


def honest(repo):
    repo.release("timestamp")


TIMEOUT = 10
EXPECT = {
    "says": "timestamp.json: .*http parse fail",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
