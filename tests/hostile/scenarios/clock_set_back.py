"""The device's clock is set back, so that expired targets would count; the time a timestamp was issued is its floor."""

from datetime import timedelta

from repository import NOW, SOON, text

FLOOR = text(NOW + timedelta(days=10))


def prepare(repo):
    repo.timestamp.unrecognized_fields["issued"] = FLOOR


def attack(repo):
    repo.targets.expires = NOW + timedelta(days=5)
    repo.release()


def honest(repo):
    repo.targets.expires = SOON
    repo.release()


EXPECT = {
    "says": "targets metadata expired",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
    "floor": FLOOR,
    "twin_floor": FLOOR,
}
