#!/usr/bin/env python3
"""Holds a TUF client against a hostile repository: each scenario is an attack that must end as the specification
says, and a valid twin, the same change done rightly, that must be accepted.

    tests/hostile/run.py [--client PROGRAM] [--only PATTERN] [--list]

PROGRAM has the command line of vigil-tuf; the default is the one that cargo built. `--client python-tuf` holds
python-tuf's own client against the same scenarios as a yardstick, and only reports where it ends differently.

A scenario is a file in tests/hostile/scenarios, whose docstring says in one sentence what the attacker tries:

    prepare(repo)   optional: the repository before the attack. By default the first release of one target; what is
                    set here goes into the first release, unless `repo.begin()` makes that earlier.
    attack(repo)    what the attacker does
    honest(repo)    the valid twin
    store(repo)     optional: files by role that are put into the device's store before attack and twin
    NEW_DEVICE      optional: True if the device has its first root alone; otherwise it has refreshed after `prepare`
    TARGET          optional: download this target; otherwise only refresh
    TWIN_TARGET     optional: the same for the twin, if it is another
    TIMEOUT         optional: seconds that the client gives a file, where the attack is to keep it waiting
    NO_RECOVERY     optional: why the device cannot accept the healed repository afterwards
    EXPECT          "exit": of the attack, 1 by default
                    "says": a pattern for what the client writes of the attack
                    "stored": the version of each stored file after the attack
                    "twin": the same after the twin
                    "floor", "twin_floor": what the file time_floor says then; without it there must be none
                    "file": whether the target was written in spite of the attack, False by default
                    "unasked": a pattern for what the attacked client must not have asked the server for

Attack and twin have a repository and a device of their own. After each, whatever the scenario, every stored file must
be byte for byte one that the server sent, nothing else may be in the store, and a downloaded target must be the genuine
one; and after the attack the device must accept the repository once its operator has healed it. What the client prints
is short, free of characters that move, hide or reorder text, and never holds the marker that attackers put into theirs
(`texts.py`): nobody has vouched for it.

To add a scenario, add a file. Exit codes: 0 all ended as expected, 1 not, 2 wrong usage.
"""

import argparse
import fnmatch
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import time
import traceback
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from urllib.parse import quote, unquote

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

import python_tuf_client  # noqa: E402
from repository import GREETING, Repository  # noqa: E402
from server import Server, Site  # noqa: E402
from texts import MARKER  # noqa: E402

FLOOR_FILE = "time_floor"
HANGS_AFTER_SECONDS = 60
MOST_REQUESTS = 200
LONGEST_PROBLEM = 2000
# Bytes of one line that the client prints, and of all that it prints in one run.
LONGEST_LINE = 600
MOST_PRINTED = 1000
# Unicode's categories of what moves a cursor, reorders or hides text, or ends a line unseen.
UNSHOWABLE = ("Cc", "Cf", "Cs", "Zl", "Zp")
PYTHON_TUF = "python-tuf"


class Device:
    """A client's directories, and the client. Without a command it is python-tuf's, of which less is expected: it stores
    and says things in its own way."""

    def __init__(self, command: list[str] | None, directory: Path, site: Site, timeout: int | None):
        self.command, self.strict, self.site = command, command is not None, site
        self.store, self.targets = directory / "metadata", directory / "targets"
        self.options = ["--timeout", str(timeout)] if timeout else []
        self.placed: dict[str, bytes] = {}
        # What is wrong with what the client printed, in any of its runs.
        self.misprints: list[str] = []

    def init(self, root: bytes) -> tuple[int, str]:
        file = self.store.parent / "root"
        file.write_bytes(root)
        self.placed["root.json"] = root
        return self.run("init", str(file))

    def place(self, role: str, data: bytes) -> None:
        name = f"{quote(role, safe='')}.json"
        (self.store / name).write_bytes(data)
        self.placed[name] = data

    def update(self, target: str | None) -> tuple[int, str]:
        url = ["--metadata-url", f"{self.site.url}/metadata"]
        if target is None:
            return self.run(*url, "refresh")
        where = ["--target-base-url", f"{self.site.url}/targets", "--target-dir", str(self.targets)]
        return self.run(*url, "--target-name", target, *where, "download")

    def run(self, *arguments: str) -> tuple[int, str]:
        arguments = ("--metadata-dir", str(self.store), *self.options, *arguments)
        if self.command is None:
            return run_python_tuf(list(arguments))
        command = [*self.command, *arguments]
        try:
            done = subprocess.run(command, capture_output=True, timeout=HANGS_AFTER_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return -1, f"hangs: no end after {HANGS_AFTER_SECONDS} seconds"
        self.misprints += misprints(done.stdout + done.stderr)
        return done.returncode, done.stderr.decode(errors="replace")

    def stored(self) -> dict[str, dict]:
        """What each stored file has signed, by role."""
        files = sorted(self.store.glob("*.json"))
        return {unquote(file.stem): json.loads(file.read_bytes())["signed"] for file in files}

    def problems(self, versions: dict[str, int], floor: str | None) -> list[str]:
        found = {role: signed["version"] for role, signed in self.stored().items()}
        different = sorted({role for role, _ in found.items() ^ versions.items()})
        problems = [f"{role}.json is {found.get(role)}, not {versions.get(role)}" for role in different]
        if not self.strict:
            return problems
        for file in sorted(self.store.iterdir()):
            if file.name == FLOOR_FILE:
                continue
            if file.suffix != ".json" or not file.is_file():
                problems.append(f"stray in the store: {file.name}")
            elif not self.was_sent(file.name, file.read_bytes()):
                problems.append(f"{file.name} is not what the server sent")
        path = self.store / FLOOR_FILE
        found_floor = path.read_text() if path.exists() else None
        if found_floor != floor:
            problems.append(f"the time floor is {found_floor}, not {floor}")
        outside = {path.name for path in self.store.parent.iterdir()} - {"metadata", "targets", "root"}
        return problems + [f"stray outside the store: {name}" for name in sorted(outside)]

    def was_sent(self, name: str, data: bytes) -> bool:
        sent = (bodies for path, bodies in self.site.sent.items() if re.sub(r"^metadata/(\d+\.)?", "", path) == name)
        return self.placed.get(name) == data or any(data in bodies for bodies in sent)

    def downloads(self) -> dict[str, bytes]:
        files = sorted(self.targets.rglob("*")) if self.targets.exists() else []
        return {unquote(str(file.relative_to(self.targets))): file.read_bytes() for file in files if file.is_file()}


def misprints(printed: bytes) -> list[str]:
    """What must not be in anything that a client prints, whoever attacks it."""
    try:
        text = printed.decode()
    except UnicodeDecodeError:
        return ["it prints what is no UTF-8"]
    problems = []
    if len(printed) > MOST_PRINTED:
        problems.append(f"it prints {len(printed)} bytes")
    longest = max(len(line) for line in printed.split(b"\n"))
    if longest > LONGEST_LINE:
        problems.append(f"it prints a line of {longest} bytes")
    unshowable = {character for character in text if unicodedata.category(character) in UNSHOWABLE} - {"\n"}
    if unshowable:
        problems.append("it prints " + ", ".join(f"U+{ord(character):04X}" for character in sorted(unshowable)))
    if MARKER in text:
        problems.append("it prints the attacker's text")
    return problems


def run_python_tuf(arguments: list[str]) -> tuple[int, str]:
    try:
        python_tuf_client.main(arguments)
    except Exception as error:  # noqa: BLE001 - whatever it objects to is its verdict
        return 1, f"{type(error).__name__}: {error}"
    return 0, ""


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"scenarios.{path.stem}", path)
    scenario = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scenario)
    if not scenario.__doc__:
        raise SystemExit(f"{path}: no docstring")
    return scenario


def play(scenario: ModuleType, kind: str, device: Device, repo: Repository) -> list[str]:
    """What is wrong with the client in one of attack and twin."""
    getattr(scenario, "prepare", lambda _: None)(repo)
    repo.begin()
    code, said = device.init(repo.first_root)
    if code == 0 and not getattr(scenario, "NEW_DEVICE", False):
        code, said = device.update(None)
    if code != 0:
        return [f"the repository was not accepted before: {code} {said}"]
    for role, data in getattr(scenario, "store", lambda _: {})(repo).items():
        device.place(role, data)
    device.site.log.clear()

    getattr(scenario, kind)(repo)
    twin = kind == "honest"
    expect, target = scenario.EXPECT, getattr(scenario, "TARGET", None)
    if twin:
        target = getattr(scenario, "TWIN_TARGET", target)
    code, said = device.update(target)
    problems = []
    expected_code = 0 if twin else expect.get("exit", 1)
    if code != expected_code:
        problems.append(f"exit code {code}, not {expected_code}")
    if device.strict and not twin and not re.search(expect["says"], said):
        problems.append(f"it does not say {expect['says']!r}")
    floor = expect.get("twin_floor" if twin else "floor")
    problems += device.problems(expect["twin" if twin else "stored"], floor)
    written = target is not None and (twin or expect.get("file", False))
    genuine = {target: repo.contents[target]} if written else {}
    if device.downloads() != genuine:
        problems.append(f"downloaded is {device.downloads()}"[:200] + f", not {sorted(genuine)} as it should be")
    if not twin and "unasked" in expect:
        problems += [f"it asked for {path}" for path in device.site.log if re.search(expect["unasked"], path)]
    if len(device.site.log) > MOST_REQUESTS:
        problems.append(f"it made {len(device.site.log)} requests")
    problems += device.misprints
    device.misprints = []
    if problems:
        problems += [f"it said: {said.strip()}", f"it asked for: {' '.join(device.site.log)}"]
    if not twin and not hasattr(scenario, "NO_RECOVERY"):
        problems += recover(device, repo) + device.misprints
    return problems


def recover(device: Device, repo: Repository) -> list[str]:
    before = device.stored()
    repo.heal(before)
    code, said = device.update(GREETING)
    if code != 0:
        return [f"the healed repository was not accepted: {code} {said.strip()}"]
    if device.stored()["root"]["version"] <= before["root"]["version"]:
        return ["the healed repository's root is not stored"]
    if device.downloads().get(GREETING) != repo.contents[GREETING]:
        return ["the healed repository's target is not what it should be"]
    return []


def judge(scenario: ModuleType, server: Server, command: list[str] | None) -> dict[str, list[str]]:
    verdicts = {}
    for kind in ("attack", "honest"):
        site = server.site(f"{scenario.__name__.rpartition('.')[2]}.{kind}")
        with tempfile.TemporaryDirectory(prefix="hostile-") as directory:
            device = Device(command, Path(directory), site, getattr(scenario, "TIMEOUT", None))
            try:
                verdicts[kind] = play(scenario, kind, device, Repository(site))
            except Exception:  # noqa: BLE001 - a broken scenario is a failure like any other
                verdicts[kind] = [traceback.format_exc()]
    return verdicts


def main() -> int:
    parser = argparse.ArgumentParser(description="Holds a TUF client against a hostile repository.")
    parser.add_argument("--client", default=str(HERE.parents[1] / "target/debug/vigil-tuf"), metavar="PROGRAM")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="scenarios whose name fits, as in a shell")
    parser.add_argument("--list", action="store_true", help="print each scenario and its attack, and end")
    arguments = parser.parse_args()

    paths = [path for path in sorted((HERE / "scenarios").glob("*.py")) if fnmatch.fnmatch(path.stem, arguments.only)]
    scenarios = {path.stem: load(path) for path in paths}
    if not scenarios:
        parser.error(f"no scenario fits {arguments.only!r}")
    width = max(map(len, scenarios))
    if arguments.list:
        for name, scenario in scenarios.items():
            print(f"{name:{width}}  {' '.join(scenario.__doc__.split())}")
        return 0

    yardstick = arguments.client == PYTHON_TUF
    command = None if yardstick else [arguments.client]
    began = time.monotonic()
    failed = {}
    with Server() as server, ThreadPoolExecutor(max_workers=4) as pool:
        # Those that wait are begun first, so that the others run meanwhile.
        order = sorted(scenarios, key=lambda name: not hasattr(scenarios[name], "TIMEOUT"))
        running = {name: pool.submit(judge, scenarios[name], server, command) for name in order}
        for name in scenarios:
            verdicts = running[name].result()
            words = ["as expected" if not verdicts[kind] else "WRONG" for kind in ("attack", "honest")]
            print(f"{name:{width}}  attack {words[0]:11}  twin {words[1]}", flush=True)
            failed |= {name: verdicts} if any(verdicts.values()) else {}

    for name, verdicts in failed.items():
        print(f"\n{name}: {' '.join(scenarios[name].__doc__.split())}")
        for kind, problems in verdicts.items():
            for problem in problems:
                shown = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in problem)
                print(f"  {kind}: {shown if len(shown) < LONGEST_PROBLEM else shown[:LONGEST_PROBLEM] + '…'}")
    print(f"\n{time.monotonic() - began:.0f} seconds")
    if yardstick:
        print(f"python-tuf ends differently in: {', '.join(failed) or 'none'}")
    print(f"{len(scenarios) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed and not yardstick else 0


if __name__ == "__main__":
    sys.exit(main())
