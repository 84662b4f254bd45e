"""The server answers with an error whose page is a timestamp."""

from server import whole


def attack(repo):
    repo.release("timestamp")
    repo.fault("timestamp", whole(repo.bytes("timestamp"), status=503))


def honest(repo):
    repo.release("timestamp")


EXPECT = {
    "says": "the server answers 503",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
