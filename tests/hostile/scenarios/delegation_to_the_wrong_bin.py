"""A target is listed in another bin than the one that its name's hash leads to."""


def list_in_bin(repo, right):
    bins = repo.delegate_to_bins("bin", bits=3)
    role = bins.get_role_for_target("app.bin")
    others = [name for name in bins.get_roles() if name != role]
    for name in [role] if right else others:
        repo.add_target("app.bin", b"app", role=name)
    repo.release()


def attack(repo):
    list_in_bin(repo, right=False)


def honest(repo):
    list_in_bin(repo, right=True)


TARGET = "app.bin"
EXPECT = {
    "says": "the repository does not list it",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, "bin-7": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, "bin-7": 1},
}
