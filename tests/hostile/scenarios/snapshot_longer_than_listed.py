"""A snapshot has a byte more than the timestamp lists."""


def attack(repo):
    repo.release("snapshot")
    repo.fault("snapshot", repo.bytes("snapshot") + b" ")


def honest(repo):
    repo.release("snapshot")


EXPECT = {
    "says": "snapshot metadata has [0-9]+ bytes where [0-9]+ are allowed",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
}
