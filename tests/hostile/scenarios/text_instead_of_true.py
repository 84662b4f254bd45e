"""A root says by a text whether its snapshots are consistent."""

from texts import long


def attack(repo):
    repo.edit("root", lambda signed: signed.update(consistent_snapshot=long("true ", 20_000)))
    repo.release_root()


def honest(repo):
    repo.release_root()


EXPECT = {
    "says": "root metadata cannot be read: a value of another type than is due",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1},
}
