"""What a template writes before, between and behind the pieces of a row: learned from the rows that
are found, so that short and common texts ("a", "user") are not looked for in role headers.

Every place where the pieces of a row could lie casts a vote for the text between them. What the
template really writes gets a vote from every row, chance only from a few.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

NARROW = b" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f"
WIDE = tuple(
    character.encode()
    for character in map(chr, (0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F,
                               0x205F, 0x3000))
)  # fmt: skip
"""White space of more than one byte that `str.strip` takes away."""
WHITE = b"(?:[" + re.escape(NARROW) + b"]|" + b"|".join(WIDE) + b")"
LEADING = re.compile(WHITE + b"*")

EDGE = -1
"""In place of a role: the start or the end of the text."""
RARE = 0.2
"""Joints with fewer votes than this share of the best one's are taken for chance."""
LONGEST = 4096
"""Bytes of the longest text between two pieces."""
CROWD, KEPT = 1000, 100
"""So many different joints between two roles are cut down to those with the most votes."""
MOST = 40
"""Different joints between two roles; more of them are no template."""

WINDOW = 64
"""Bytes that are looked at together for white space at an end."""

PLAIN = frozenset(range(0x21, 0x7F))
"""Bytes that are a character of their own, and no white space."""

Slot = tuple[int, int]


def trimmed(text: bytes, start: int, end: int) -> Slot:
    """`start:end` without the white space at both ends."""
    if start < end and text[start] in PLAIN and text[end - 1] in PLAIN:
        return start, end
    leading = LEADING.match(text, start, end)
    start = leading.end() if leading else start
    while end > start:
        if text[end - 1] in NARROW:
            window = max(end - WINDOW, start)
            end = window + len(text[window:end].rstrip(NARROW))
            continue
        if text[end - 1] < 0x80:
            break
        wide = next((len(tail) for tail in WIDE if text.endswith(tail, start, end)), 0)
        if not wide:
            break
        end -= wide
    return start, end


class Joints:
    """The texts between pieces, by the roles of the pieces around them."""

    def __init__(self) -> None:
        self.votes: dict[Slot, Counter[bytes]] = {}
        self.known: dict[Slot, tuple[bytes, ...]] = {}
        self.openings: tuple[bytes, ...] = ()
        self.pattern: re.Pattern[bytes] | None = None
        self.rows = 0

    def add(self, text: bytes, roles: Sequence[int], places: Sequence[Sequence[Slot]]) -> None:
        """Count the votes of a row: for each piece all the places where it could lie."""
        self.rows += 1
        ends: Sequence[Slot] = [(0, 0)]
        before = EDGE
        for role, slots in zip((*roles, EDGE), (*places, [(len(text),) * 2]), strict=True):
            votes = self.votes.setdefault((before, role), Counter())
            votes.update(set(_between(text, ends, slots)))
            if len(votes) > CROWD:
                kept = votes.most_common(KEPT)
                votes.clear()
                votes.update(dict(kept))
            before, ends = role, slots

    def settle(self) -> None:
        """Take what has enough votes for what the template writes."""
        self.known = {slot: _best(slot, votes) for slot, votes in self.votes.items()}
        inner, first = set[bytes](), set[bytes]()
        for (before, _), joints in self.known.items():
            (first if before == EDGE else inner).update(joints)
        self.openings = _longest_first(first)
        words = [re.escape(joint) for joint in _longest_first(inner) if joint]
        self.pattern = re.compile(b"|".join(words)) if words else None

    def split(self, text: bytes) -> list[Slot]:
        """Where the pieces lie, if the text holds nothing that looks like a joint."""
        if self.pattern is None:
            return []
        at, _ = trimmed(text, 0, len(text))
        at += next((len(o) for o in self.openings if text.startswith(o, at)), 0)
        found: list[Slot] = []
        for match in self.pattern.finditer(text, at):
            found.append(trimmed(text, at, match.start()))
            at = match.end()
        found.append(trimmed(text, at, len(text)))
        return [slot for slot in found if slot[1] > slot[0]]

    def fit(self, text: bytes, roles: Sequence[int], slots: Sequence[Slot]) -> int:
        """How many of the texts around the pieces are known; one more than pieces: all of them."""
        known = 0
        before, end = EDGE, 0
        for role, (start, until) in zip((*roles, EDGE), (*slots, (len(text),) * 2), strict=True):
            first, last = trimmed(text, end, start)
            known += text[first:last] in self.known.get((before, role), ())
            before, end = role, until
        return known

    def after(self, text: bytes, at: int, before: int, role: int) -> Iterator[int]:
        """Places behind `at` where a piece of a role begins."""
        at = _skipped(text, at)
        for joint in self.known.get((before, role), ()):
            if text.startswith(joint, at):
                yield _skipped(text, at + len(joint))


def _skipped(text: bytes, at: int) -> int:
    match = LEADING.match(text, at)
    return match.end() if match else at


def _between(text: bytes, ends: Sequence[Slot], slots: Sequence[Slot]) -> Iterator[bytes]:
    for _, end in ends:
        for start, _ in slots:
            if end <= start <= end + LONGEST:
                first, last = trimmed(text, end, start)
                yield text[first:last]


def _best(slot: Slot, votes: Counter[bytes]) -> tuple[bytes, ...]:
    """The joints with enough votes; among equals a long one between pieces, a short one outside."""
    most = max(votes.values(), default=0)
    some = [joint for joint, count in votes.items() if count >= most * RARE]
    sign = 1 if EDGE in slot else -1
    return tuple(sorted(some, key=lambda joint: (-votes[joint], sign * len(joint)))[:MOST])


def _longest_first(joints: set[bytes]) -> tuple[bytes, ...]:
    return tuple(sorted(joints, key=lambda joint: (-len(joint), joint)))
