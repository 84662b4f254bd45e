"""The file 3.root.json is root 1, rightly signed for both."""


def prepare(repo):
    repo.begin()
    repo.release_root()


def attack(repo):
    repo.fault_at("metadata/3.root.json", repo.first_root)


def honest(repo):
    repo.release_root()


EXPECT = {
    "says": "root metadata has version 1 where 3 is due",
    "stored": {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 3, "timestamp": 1, "snapshot": 1, "targets": 1},
}
