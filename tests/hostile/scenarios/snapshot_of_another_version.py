"""A snapshot's version is not the one that the timestamp lists: the old one is served under the new one's name."""


def prepare(repo):
    repo.lists_content = False


def attack(repo):
    old = repo.bytes("snapshot")
    repo.release("snapshot")
    repo.fault("snapshot", old)


def honest(repo):
    repo.release("snapshot")


EXPECT = {
    "says": "snapshot metadata has version 1 where 2 is due",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
}
