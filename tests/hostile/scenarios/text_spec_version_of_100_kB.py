"""A root follows a version of the specification of 100,000 digits."""


def attack(repo):
    repo.edit("root", lambda signed: signed.update(spec_version="1" * 100_000 + ".0"))
    repo.release_root()


def honest(repo):
    repo.edit("root", lambda signed: signed.update(spec_version="1." + "0" * 100_000))
    repo.release_root()


EXPECT = {
    "says": "root metadata cannot be read: it follows another version of the specification",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1},
}
