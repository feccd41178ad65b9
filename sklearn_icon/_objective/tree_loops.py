"""Compiled loops over a balanced tree of points, on the CPU.

Node k has the children 2k + 1 and 2k + 2, and the points `order[bounds[k, 0]:bounds[k, 1]]`.
"""

from __future__ import annotations

import numpy as np

from .._core.compiled import njit
from .._core.types import Array

_AT_ONCE = 512  # sources, whose numbers stay in the nearest cache


@njit(nogil=True, fastmath=True, error_model="numpy")
def halve(z: Array, order: Array, bounds: Array, first_node: int, stop_node: int, last: int) -> None:
    """Part points of nodes and their descendants, up to a level's last node, at medians of their widest columns."""
    pending = list(range(first_node, stop_node))
    while pending:
        k = pending.pop()
        if 2 * k + 2 > last:
            continue
        first, stop = bounds[k, 0], bounds[k, 1]
        middle = (first + stop) // 2
        widest, column = z.dtype.type(-1), 0
        for d in range(z.shape[1]):
            low = high = z[order[first], d]
            for a in range(first + 1, stop):
                low, high = min(low, z[order[a], d]), max(high, z[order[a], d])
            if high - low > widest:
                widest, column = high - low, d
        _part(z, order, first, stop, middle, column)
        bounds[2 * k + 1, 0], bounds[2 * k + 1, 1] = first, middle
        bounds[2 * k + 2, 0], bounds[2 * k + 2, 1] = middle, stop
        pending.append(2 * k + 1)
        pending.append(2 * k + 2)


@njit(nogil=True, fastmath=True, error_model="numpy")
def _part(z: Array, order: Array, first: int, stop: int, middle: int, column: int) -> None:
    """Reorder points so that none from the middle on has a smaller number in a column than one before."""
    low, high = first, stop - 1
    while low < high:
        pivot = z[order[(low + high) // 2], column]
        i, j = low, high
        while i <= j:
            while z[order[i], column] < pivot:
                i += 1
            while z[order[j], column] > pivot:
                j -= 1
            if i <= j:
                order[i], order[j] = order[j], order[i]
                i += 1
                j -= 1
        if middle <= j:
            high = j
        elif middle >= i:
            low = i
        else:
            return


@njit(nogil=True, fastmath=True, error_model="numpy")
def summarise(z: Array, charges: Array, bounds: Array, centre: Array, about: Array, first: int, last: int) -> None:
    """centre[k] = the mean of a node's sorted points by their charges; about[k] = (charge, radius), for some nodes."""
    for k in range(first, last):
        total = 0.0
        centre[k] = 0
        for a in range(bounds[k, 0], bounds[k, 1]):
            total += charges[a]
            for d in range(z.shape[1]):
                centre[k, d] += charges[a] * z[a, d]
        centre[k] /= z.dtype.type(max(total, 1e-30))
        farthest = z.dtype.type(0)
        for a in range(bounds[k, 0], bounds[k, 1]):
            sq = z.dtype.type(0)
            for d in range(z.shape[1]):
                sq += (z[a, d] - centre[k, d]) ** 2
            farthest = max(farthest, sq)
        about[k, 0], about[k, 1] = total, np.sqrt(farthest)


@njit(nogil=True, fastmath=True, error_model="numpy")
def potentials(
    z: Array, charges: Array, bounds: Array, centre: Array, about: Array, leaves: tuple, kernel: tuple, out: Array
) -> None:
    """out[:, a] = (sum_j c_j k_aj, its gradient at z_a) of the sorted points of some leaves.

    leaves are (first of all, first, last, angle); kernel is (a, b, c) as of `slope_terms`. What is summed for a leaf is
    gathered once: nodes whose radius is below angle times their distance from all of its points, and other points.
    """
    first_leaf, first, last, angle = leaves
    n, width = z.shape
    sources = np.empty(((n + len(about)) // _AT_ONCE + 1, width + 1, _AT_ONCE), dtype=z.dtype)
    buffer = np.empty(_AT_ONCE, dtype=z.dtype)
    pending = np.empty(128, dtype=np.int64)
    for leaf in range(first, last):
        n_sources, n_pending = 0, 1
        pending[0] = 0
        while n_pending:
            n_pending -= 1
            k = pending[n_pending]
            sq = z.dtype.type(0)
            for d in range(width):
                sq += (centre[k, d] - centre[leaf, d]) ** 2
            if about[k, 1] < angle * (np.sqrt(sq) - about[leaf, 1]):
                _put(sources, n_sources, centre[k], about[k, 0])
                n_sources += 1
            elif k >= first_leaf:
                for a in range(bounds[k, 0], bounds[k, 1]):
                    _put(sources, n_sources, z[a], charges[a])
                    n_sources += 1
            else:
                pending[n_pending], pending[n_pending + 1] = 2 * k + 1, 2 * k + 2
                n_pending += 2
        for a in range(bounds[leaf, 0], bounds[leaf, 1]):
            out[a] = 0
            for start in range(0, n_sources, _AT_ONCE):
                some = sources[start // _AT_ONCE]
                _sum_sources(z[a], some, min(_AT_ONCE, n_sources - start), kernel, buffer, out[a])


@njit(nogil=True, fastmath=True, error_model="numpy", inline="always")
def _put(sources: Array, number: int, point: Array, charge: float) -> None:
    """Make a point the source of a number, in blocks."""
    block, place = sources[number // _AT_ONCE], number % _AT_ONCE
    for d in range(len(point)):
        block[d, place] = point[d]
    block[len(point), place] = charge


@njit(nogil=True, fastmath=True, error_model="numpy", inline="always")
def _sum_sources(point: Array, sources: Array, n_sources: int, kernel: tuple, pushes: Array, out: Array) -> None:
    """Add (sum_j c_j k_j, its gradient at a point) of some sources."""
    (a, b, c), width, number = kernel, len(point), point.dtype.type
    charges, one, value = sources[width], number(1), number(0)
    pushes[:] = 0
    for d in range(width):
        x, of_sources = point[d], sources[d]
        for j in range(n_sources):
            difference = x - of_sources[j]
            pushes[j] += difference * difference
    if c == -b:
        for j in range(n_sources):
            r = a / (a + b * pushes[j])
            k = charges[j] * r
            value += k
            pushes[j] = k * r
    elif b > 0 and 2 * c / b == -3:  # two degrees of freedom
        for j in range(n_sources):
            r = a / (a + b * pushes[j])
            k = charges[j] * r * np.sqrt(r)
            value += k
            pushes[j] = k * r
    elif b > 0:
        power, per_square = c / b, b / a
        for j in range(n_sources):
            base = one + per_square * pushes[j]
            k = charges[j] * np.exp(power * np.log(base))
            value += k
            pushes[j] = k / base
    else:
        for j in range(n_sources):
            pushes[j] = charges[j] * np.exp(c / a * pushes[j])
            value += pushes[j]
    out[0] += value
    factor = 2 * c / a
    for d in range(width):
        x, of_sources, slope = point[d], sources[d], number(0)
        for j in range(n_sources):
            slope += pushes[j] * (x - of_sources[j])
        out[1 + d] += factor * slope


@njit(nogil=True, fastmath=True, error_model="numpy")
def estimates(z: Array, charges: Array, drawn: tuple, near: tuple, rows: Array, kernel: tuple, out: Array) -> None:
    """out[a] = (sum_j c_j k_ij, its gradient at z_i) for i = rows[a], estimated from drawn keys, exact among near ones.

    drawn is (keys, which are); near is (indptr, indices) of each row's near keys. Drawn keys stand for all others; near
    ones, and the row itself, for themselves alone.
    """
    (keys, is_drawn), (indptr, indices), (n, width) = drawn, near, z.shape
    number, buffer = z.dtype.type, np.empty(_AT_ONCE, dtype=z.dtype)
    sources, some = (
        np.empty((-(-len(keys) // _AT_ONCE), width + 1, _AT_ONCE), z.dtype),
        np.empty((width + 1, _AT_ONCE), z.dtype),
    )
    for a in range(len(keys)):
        _put(sources, a, z[keys[a]], charges[keys[a]])
    for a in range(len(rows)):
        i = rows[a]
        own = number(is_drawn[i])
        times = number(n - 1) / (number(len(keys)) - own)
        out[a] = 0
        for start in range(0, len(keys), _AT_ONCE):
            block = sources[start // _AT_ONCE]
            _sum_sources(z[i], block, min(_AT_ONCE, len(keys) - start), kernel, buffer, out[a])
        out[a, 0] -= own * charges[i]
        for d in range(width + 1):
            out[a, d] *= times
        out[a, 0] += charges[i]
        for start in range(indptr[i], indptr[i + 1], _AT_ONCE):
            count = min(_AT_ONCE, indptr[i + 1] - start)
            for e in range(count):
                j = indices[start + e]
                for d in range(width):
                    some[d, e] = z[j, d]
                some[width, e] = charges[j] * (number(1) - times * number(is_drawn[j])) if j != i else number(0)
            _sum_sources(z[i], some, count, kernel, buffer, out[a])
