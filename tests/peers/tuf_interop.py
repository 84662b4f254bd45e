#!/usr/bin/env python3
"""Reads a repository made by `vigil-publish` with python-tuf, the reference client of TUF.

    pip install tuf
    tests/peers/tuf_interop.py REPOSITORY STORE TARGET...     e.g. /srv/vigil store operators/acme.json

Serves the directory with `python3 -m http.server` on 127.0.0.1, refreshes and downloads the targets, through
delegations where there are some. STORE keeps what the client trusts from one run to the next, as a device does; without
anything in it the client begins with the repository's first root. Exit code 0 if python-tuf accepts all of it, 1 if not,
2 on wrong usage.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tuf.ngclient import Updater, UpdaterConfig


def serve(directory: Path) -> tuple[subprocess.Popen, int]:
    """Starts the server on a free port, and waits for the line in which it says which."""
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    line = server.stdout.readline()
    match = re.search(r"port (\d+)", line)
    if match is None:
        server.kill()
        raise RuntimeError(f"the HTTP server did not start: {line!r}")
    return server, int(match.group(1))


def download(repository: Path, store: Path, names: list[str], port: int) -> None:
    bootstrap = None
    if not (store / "root.json").exists():
        bootstrap = (repository / "metadata" / "1.root.json").read_bytes()
    base = f"http://127.0.0.1:{port}"
    updater = Updater(
        metadata_dir=str(store),
        metadata_base_url=f"{base}/metadata/",
        target_dir=str(store),
        target_base_url=f"{base}/targets/",
        config=UpdaterConfig(prefix_targets_with_hash=True),
        bootstrap=bootstrap,
    )
    updater.refresh()
    root = json.loads((store / "root.json").read_bytes())["signed"]["version"]
    for name in names:
        info = updater.get_targetinfo(name)
        if info is None:
            raise RuntimeError(f"python-tuf finds no target {name}")
        with tempfile.TemporaryDirectory() as scratch:
            path = updater.download_target(info, f"{scratch}/target")
            json.loads(Path(path).read_bytes())
        print(f"python-tuf accepts {name}: {info.length} bytes, root {root}")


def main() -> int:
    if len(sys.argv) < 4:
        print(__doc__, file=sys.stderr)
        return 2
    repository, store, names = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    store.mkdir(parents=True, exist_ok=True)
    server, port = serve(repository)
    try:
        download(repository, store, names, port)
    except Exception as error:  # noqa: BLE001 - whatever python-tuf objects to is the finding
        print(f"python-tuf refuses {repository}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    finally:
        server.kill()
        server.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
