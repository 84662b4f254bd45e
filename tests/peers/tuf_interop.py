#!/usr/bin/env python3
"""Reads a repository made by `vigil-publish` with python-tuf, the reference client of TUF.

    pip install tuf
    tests/peers/tuf_interop.py REPOSITORY TARGET     e.g. /srv/vigil operators/acme.json

Serves the directory with `python3 -m http.server` on 127.0.0.1, refreshes from its first root and downloads the
target. Exit code 0 if python-tuf accepts all of it, 1 if not, 2 on wrong usage.
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


def download(repository: Path, name: str, port: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        base = f"http://127.0.0.1:{port}"
        updater = Updater(
            metadata_dir=f"{scratch}/metadata",
            metadata_base_url=f"{base}/metadata/",
            target_dir=scratch,
            target_base_url=f"{base}/targets/",
            config=UpdaterConfig(prefix_targets_with_hash=True),
            bootstrap=(repository / "metadata" / "1.root.json").read_bytes(),
        )
        updater.refresh()
        info = updater.get_targetinfo(name)
        if info is None:
            raise RuntimeError(f"python-tuf finds no target {name}")
        path = updater.download_target(info, f"{scratch}/target")
        json.loads(Path(path).read_bytes())
        print(f"python-tuf accepts {name}: {info.length} bytes")


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    repository, name = Path(sys.argv[1]), sys.argv[2]
    server, port = serve(repository)
    try:
        download(repository, name, port)
    except Exception as error:  # noqa: BLE001 - whatever python-tuf objects to is the finding
        print(f"python-tuf refuses {repository}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    finally:
        server.kill()
        server.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
