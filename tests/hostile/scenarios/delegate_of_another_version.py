"""A delegated role comes at an older version than the snapshot lists."""


def prepare(repo):
    repo.lists_content = False
    repo.delegate("products", ["products/*"])
    repo.add_target("products/app.bin", b"app", role="products")


def attack(repo):
    old = repo.bytes("products")
    repo.release("products")
    repo.fault("products", old)


def honest(repo):
    repo.release("products")


TARGET = "products/app.bin"
EXPECT = {
    "says": 'delegated role "products" metadata has version 1 where 2 is due',
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1, "products": 2},
}
