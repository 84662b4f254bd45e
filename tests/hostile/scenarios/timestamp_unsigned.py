"""A timestamp has no signatures."""


def attack(repo):
    repo.sign_with("timestamp")
    repo.release("timestamp")


def honest(repo):
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata has 0 of the 1 valid signatures",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
