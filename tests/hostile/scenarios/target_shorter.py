"""The server leaves the end of the target away."""


def attack(repo):
    repo.fault_at(repo.target_path("greeting.txt"), b"hell")


def honest(repo):
    pass


TARGET = "greeting.txt"
EXPECT = {
    "says": 'target "greeting.txt" has 4 bytes where 5 are allowed',
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
}
