"""A signature of a snapshot is 200,000 DEL characters; it does not count, and spoils no other."""

from texts import DELETE, long


def attack(repo):
    repo.edit_envelope("snapshot", lambda file: file["signatures"][0].update(sig=long(DELETE, 200_000)))
    repo.release("snapshot")


def honest(repo):
    strange = {"keyid": "0" * 64, "sig": long(DELETE, 200_000)}
    repo.edit_envelope("snapshot", lambda file: file["signatures"].insert(0, strange))
    repo.release("snapshot")


EXPECT = {
    "says": "snapshot metadata has 0 of the 1 valid signatures",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
}
