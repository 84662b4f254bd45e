"""The targets never end, and the snapshot does not say how long they are."""

from server import endless


def prepare(repo):
    repo.lists_content = False


def attack(repo):
    repo.release()
    repo.fault("targets", endless(repo.bytes("targets")))


def honest(repo):
    repo.release()


TIMEOUT = 10
EXPECT = {
    "says": "targets metadata has 5242881 bytes where 5242880 are allowed",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
}
