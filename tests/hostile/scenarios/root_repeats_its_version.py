"""The file 2.root.json is root 1 again: by section 5.3.5 it is discarded, and the trusted root is used further."""


def attack(repo):
    repo.fault_at("metadata/2.root.json", repo.first_root)
    repo.release("timestamp")


def honest(repo):
    repo.release_root()
    repo.release("timestamp")


EXPECT = {
    "exit": 0,
    "says": "",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
    "twin": {"root": 2, "timestamp": 2, "snapshot": 1, "targets": 1},
}
