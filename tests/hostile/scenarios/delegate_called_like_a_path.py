"""A delegated role's name leads out of the store and back to the root; rightly signed it is a role like any other."""

from repository import new_key

NAME = "../metadata/root"


def delegate(repo):
    repo.delegate(NAME, ["*"])
    repo.add_target("app.bin", b"app", role=NAME)
    repo.release()


def attack(repo):
    repo.sign_with(NAME, new_key())
    delegate(repo)


def honest(repo):
    delegate(repo)


TARGET = "app.bin"
EXPECT = {
    "says": 'delegated role "../metadata/root" metadata has 0 of the 1 valid signatures',
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2} | {NAME: 1},
    "unasked": r"\.\./",
}
