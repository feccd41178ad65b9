"""Few combinations of parameters in place of all."""

from itertools import combinations, product
from math import comb


def covering(*values, strength=2):
    """Tuples, one value of each parameter, among which any values of any two parameters (or `strength`) meet."""
    values, seen, found = [list(each) for each in values], set(), []
    for new in range(comb(len(values), strength), 0, -1):  # those that bring the most come first
        for row in product(*(range(len(each)) for each in values)):
            here = set(combinations(enumerate(row), strength)) - seen
            if len(here) >= new:
                seen |= here
                found.append(tuple(each[k] for each, k in zip(values, row, strict=True)))
    return found
