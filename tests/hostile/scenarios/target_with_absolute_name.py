"""A target's name is the path of one of the device's files."""


def attack(repo):
    repo.add_target("/etc/motd", b"evil")
    repo.release()


def honest(repo):
    repo.add_target("etc/motd", b"not evil")
    repo.release()


TARGET = "/etc/motd"
TWIN_TARGET = "etc/motd"
EXPECT = {
    "says": "target /etc/motd",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
    "unasked": r"targets/",
}
