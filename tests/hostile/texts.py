"""Texts that an attacker chooses in the hope that somebody repeats them: to a log, a terminal, a person."""

from collections.abc import Callable

# In every such text that nobody has vouched for; the runner looks for it in all that the client prints.
MARKER = "evil-marker"
# Clears the screen, sets the window's title, and hides what follows.
TERMINAL = f"\x1b[2J\x1b]0;{MARKER}\x07\x1b[8m"
# Reads from right to left; two of the lines are one to whoever splits at U+000A.
REORDERED = f"\u202e{MARKER}\u2066\u2028{MARKER}\u2029"
DELETE = "\x7f"


def long(filler: str, count: int = 100_000) -> str:
    """The marker, and `filler` so often."""
    return MARKER + filler * count


def insert(member: str) -> Callable[[bytes], bytes]:
    """Puts `member` into the file's `signed` as it stands, whether JSON allows it or not. Breaks the signatures."""
    return lambda data: data.replace(b'"_type"', member.encode() + b', "_type"', 1)
