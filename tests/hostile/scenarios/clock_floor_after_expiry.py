"""A timestamp was issued after it expires, so that a device would find everything expired for ever."""

from repository import FAR, NOW, text


def attack(repo):
    repo.timestamp.unrecognized_fields["issued"] = text(FAR)
    repo.release("timestamp")
    del repo.timestamp.unrecognized_fields["issued"]


def honest(repo):
    repo.timestamp.unrecognized_fields["issued"] = text(NOW)
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata cannot be read: it was issued after it expired",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
    "twin_floor": text(NOW),
}
