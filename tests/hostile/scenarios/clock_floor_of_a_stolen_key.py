"""A stolen key put the floor under the clock weeks ahead: it sinks when the key is rotated, and not before."""

from datetime import timedelta

from repository import NOW, new_key, text

FLOOR = text(NOW + timedelta(days=20))


def prepare(repo):
    repo.timestamp.unrecognized_fields["issued"] = FLOOR
    repo.begin()
    del repo.timestamp.unrecognized_fields["issued"]
    repo.targets.expires = NOW + timedelta(days=5)


def attack(repo):
    repo.release()


def honest(repo):
    repo.set_keys("timestamp", [new_key()])
    repo.release_root()
    repo.release()


EXPECT = {
    "says": "targets metadata expired",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
    "twin": {"root": 2, "timestamp": 2, "snapshot": 2, "targets": 2},
    "floor": FLOOR,
    "twin_floor": "1970-01-01T00:00:00Z",
}
