#!/usr/bin/env python3
"""python-tuf's client with the command line of vigil-tuf, as a yardstick for tests/hostile/run.py."""

import argparse
import sys
from pathlib import Path
from urllib.parse import quote

from tuf.ngclient import Updater
from tuf.ngclient.urllib3_fetcher import Urllib3Fetcher


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    for option in ("metadata-dir", "metadata-url", "target-name", "target-base-url", "target-dir"):
        parser.add_argument(f"--{option}")
    parser.add_argument("--timeout", type=int, default=60)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("root")
    commands.add_parser("refresh")
    commands.add_parser("download")
    arguments = parser.parse_args(argv)

    store = Path(arguments.metadata_dir)
    if arguments.command == "init":
        store.mkdir(parents=True)
        (store / "root.json").write_bytes(Path(arguments.root).read_bytes())
        return
    updater = Updater(
        str(store),
        arguments.metadata_url,
        target_base_url=arguments.target_base_url,
        fetcher=Urllib3Fetcher(socket_timeout=arguments.timeout),
        bootstrap=None,
    )
    updater.refresh()
    if arguments.command == "download":
        name, directory = arguments.target_name, Path(arguments.target_dir)
        info = updater.get_targetinfo(name)
        if info is None:
            raise LookupError(f"{name} is not listed")
        directory.mkdir(exist_ok=True)
        updater.download_target(info, str(directory / quote(name, safe="")))


if __name__ == "__main__":
    try:
        main()
    except Exception as error:  # noqa: BLE001 - whatever it objects to is its verdict
        sys.exit(f"{type(error).__name__}: {error}")
