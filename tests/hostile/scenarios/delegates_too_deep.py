"""Delegations go down further than any client should follow."""


def delegate_down(repo, depth):
    parent = "targets"
    for level in range(depth):
        repo.delegate(f"level{level}", ["products/*"], parent)
        parent = f"level{level}"
    repo.add_target("products/app.bin", b"app", role=parent)
    repo.release()


def attack(repo):
    delegate_down(repo, 33)


def honest(repo):
    delegate_down(repo, 32)


STORED = {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2} | {f"level{level}": 1 for level in range(32)}
TARGET = "products/app.bin"
EXPECT = {
    "says": "looked into 32 delegated roles without an end",
    "stored": STORED,
    "twin": STORED,
    "unasked": "targets/",
}
