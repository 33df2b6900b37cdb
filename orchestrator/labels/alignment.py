"""Which row of one prepared data set is which row of another.

Both come from the same source rows, but shuffled, with rows left out, and with other text around
the same content.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

ENOUGH = 0.3
"""How much of the shorter row, by weight, two rows must share to be the same one."""
COMMON = 64
"""Features in more rows than this find nothing: there would be too many candidates."""

Features = frozenset[Hashable]
Pair = tuple[int, int]


def align(
    left: Sequence[Hashable],
    right: Sequence[Hashable],
    left_text: Callable[[int], str],
    right_text: Callable[[int], str],
) -> tuple[list[Pair], list[int], list[int]]:
    """Pairs of row numbers, and those that are only left and only right, in the left's order.

    Rows with equal keys are paired first, then rows with the same letters, then rows that share
    most of their rare words. Only rows that are not equal are asked for their text.
    """
    pairs, lefts, rights = _equal(dict(enumerate(left)), dict(enumerate(right)))
    texts = {row: left_text(row) for row in lefts}, {row: right_text(row) for row in rights}
    more, lefts, rights = _equal(
        {row: _letters(texts[0][row]) for row in lefts},
        {row: _letters(texts[1][row]) for row in rights},
    )
    pairs += more
    more = _alike(
        _features({row: texts[0][row] for row in lefts}),
        _features({row: texts[1][row] for row in rights}),
    )
    taken = {one for one, _ in more}, {other for _, other in more}
    only_left = [row for row in lefts if row not in taken[0]]
    only_right = [row for row in rights if row not in taken[1]]
    return sorted(pairs + more), only_left, only_right


def _equal(
    left: dict[int, Hashable], right: dict[int, Hashable]
) -> tuple[list[Pair], list[int], list[int]]:
    """Rows with equal keys, each taken once; and the rest of both sides."""
    waiting: defaultdict[Hashable, list[int]] = defaultdict(list)
    for row in reversed(right):
        waiting[right[row]].append(row)
    pairs, alone = [], []
    for row, key in left.items():
        if waiting.get(key):
            pairs.append((row, waiting[key].pop()))
        else:
            alone.append(row)
    return pairs, alone, sorted(row for rows in waiting.values() for row in rows)


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))


def _features(texts: Mapping[int, str]) -> dict[int, Features]:
    """Words and pairs of words of each row, but those of most rows: they are the template's."""
    found = {}
    for row, text in texts.items():
        words = text.split()
        found[row] = frozenset(words) | frozenset(pairwise(words))
    often = _often(found.values())
    most = max(len(found) * 0.6, 2)
    return {
        row: frozenset(feature for feature in features if often[feature] <= most)
        for row, features in found.items()
    }


def _alike(left: Mapping[int, Features], right: Mapping[int, Features]) -> list[Pair]:
    """The most alike first, each row once."""
    pairs: list[Pair] = []
    free = set(left), set(right)
    for _, one, other in sorted(_candidates(left, right)):
        if one in free[0] and other in free[1]:
            pairs.append((one, other))
            free[0].remove(one)
            free[1].remove(other)
    return pairs


def _candidates(
    left: Mapping[int, Features], right: Mapping[int, Features]
) -> Iterator[tuple[float, int, int]]:
    """Rows that share rare features, with the share of them, negative so that it sorts first."""
    where: defaultdict[Hashable, list[int]] = defaultdict(list)
    for row, features in right.items():
        for feature in features:
            where[feature].append(row)
    often = _often([*left.values(), *right.values()])
    weight = {feature: 1 / count for feature, count in often.items()}
    total = {row: sum(weight[f] for f in features) for row, features in right.items()}
    for row, features in left.items():
        shared: defaultdict[int, float] = defaultdict(float)
        for feature in features:
            if often[feature] <= 2 * COMMON:
                for other in where.get(feature, ()):
                    shared[other] += weight[feature]
        own = sum(weight[f] for f in features)
        for other, amount in shared.items():
            share = amount / min(own, total[other])
            if share >= ENOUGH:
                yield -share, row, other


def _often(rows: Iterable[Features]) -> Counter[Hashable]:
    return Counter(feature for features in rows for feature in features)
