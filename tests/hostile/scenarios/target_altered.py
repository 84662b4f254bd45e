"""The server serves another file of the same length as the target."""


def attack(repo):
    repo.fault_at(repo.target_path("greeting.txt"), b"jello")


def honest(repo):
    pass


TARGET = "greeting.txt"
EXPECT = {
    "says": 'target "greeting.txt" has not the hash',
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
}
