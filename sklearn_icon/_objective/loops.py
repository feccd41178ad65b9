"""Compiled loops over edges and points of 2-D maps on the CPU, kept on disk between processes.

They release the interpreter's lock and work on a part of the rows, so that threads can share a map. Comparisons with
infinity and NaN are kept out, so that fast arithmetic is safe.
"""

from __future__ import annotations

import numpy as np

from .._core.compiled import njit
from .._core.types import Array


@njit(nogil=True, fastmath=True, error_model="numpy")
def pull(
    z: Array, indptr: Array, indices: Array, weights: Array, first: int, last: int, slope: tuple, out: Array
) -> None:
    """Add w_ij / (a + b s_ij) (z_i - z_j) to out[i], and subtract it from out[j], for edges of rows first to last.

    slope is (a, b).
    """
    a, b = slope
    for i in range(first, last):
        x, y = z[i, 0], z[i, 1]
        pull_x = pull_y = z.dtype.type(0)
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            dx, dy = x - z[j, 0], y - z[j, 1]
            g = weights[e] / (a + b * (dx * dx + dy * dy))
            pull_x += g * dx
            pull_y += g * dy
            out[j, 0] -= g * dx
            out[j, 1] -= g * dy
        out[i, 0] += pull_x
        out[i, 1] += pull_y


@njit(nogil=True, fastmath=True, error_model="numpy")
def pull_any(
    z: Array, indptr: Array, indices: Array, weights: Array, first: int, last: int, slope: tuple, out: Array
) -> None:
    """`pull` of any number of dimensions; slope is (a, b)."""
    a, b = slope
    for i in range(first, last):
        own, of_own = z[i], out[i]
        for e in range(indptr[i], indptr[i + 1]):
            other, of_other = z[indices[e]], out[indices[e]]
            sq = z.dtype.type(0)
            for d in range(z.shape[1]):
                sq += (own[d] - other[d]) ** 2
            g = weights[e] / (a + b * sq)
            for d in range(z.shape[1]):
                step = g * (own[d] - other[d])
                of_own[d] += step
                of_other[d] -= step


@njit(nogil=True, fastmath=True, error_model="numpy")
def take(z: Array, order: Array, out: Array) -> None:
    """out[a] = z[order[a]]."""
    for a in range(len(order)):
        for d in range(z.shape[1]):
            out[a, d] = z[order[a], d]


@njit(nogil=True, fastmath=True, error_model="numpy")
def put(parts: Array, order: Array, factor: float, first: int, last: int, out: Array) -> None:
    """out[order[a]] = factor * sum of parts[:, a], for a from first to last; these parts are zeroed."""
    for a in range(first, last):
        for d in range(out.shape[1]):
            total = out.dtype.type(0)
            for t in range(len(parts)):
                total += parts[t, a, d]
                parts[t, a, d] = 0
            out[order[a], d] = factor * total


@njit(nogil=True, fastmath=True, error_model="numpy")
def log_sum(
    z: Array, indptr: Array, indices: Array, weights: Array, first: int, last: int, df: float, out: Array
) -> None:
    """out[0] = sum of w_ij log(1 + s_ij / df) over edges of rows first to last; of w_ij s_ij where df is zero.

    Logarithms are of the points' precision, to an absolute 1e-7 in single, a third of the time.
    """
    total, one = 0.0, z.dtype.type(1)
    for i in range(first, last):
        for e in range(indptr[i], indptr[i + 1]):
            s = z.dtype.type(0)
            for d in range(z.shape[1]):
                s += (z[i, d] - z[indices[e], d]) ** 2
            total += weights[e] * (np.log(one + s / df) if df > 0 else s)
    out[0] = total


@njit(nogil=True, fastmath=True, error_model="numpy")
def dense_cauchy(x: Array, y: Array, weights: Array, out: Array) -> None:
    """out[i] = sum_j (w r dx, w r dy, r^2 dx, r^2 dy, r) with r = 1 / (1 + s_ij), over all pairs, i itself included."""
    one = x.dtype.type(1)
    for i in range(len(x)):
        x_i, y_i = x[i], y[i]
        pull_x = pull_y = push_x = push_y = total = x.dtype.type(0)
        for j in range(len(x)):
            dx, dy = x_i - x[j], y_i - y[j]
            r = one / (one + dx * dx + dy * dy)
            w, sq = weights[i, j] * r, r * r
            pull_x += w * dx
            pull_y += w * dy
            push_x += sq * dx
            push_y += sq * dy
            total += r
        out[i, 0], out[i, 1], out[i, 2], out[i, 3], out[i, 4] = pull_x, pull_y, push_x, push_y, total


@njit(nogil=True, fastmath=True, error_model="numpy")
def cauchy(x: Array, y: Array, first: int, last: int, out: Array) -> None:
    """out[i] = sum_j (r^2 dx, r^2 dy, r) with r = 1 / (1 + s_ij), over all j, i itself included, for i from first."""
    one = x.dtype.type(1)
    for i in range(first, last):
        x_i, y_i = x[i], y[i]
        push_x = push_y = total = x.dtype.type(0)
        for j in range(len(x)):
            dx, dy = x_i - x[j], y_i - y[j]
            r = one / (one + dx * dx + dy * dy)
            sq = r * r
            push_x += sq * dx
            push_y += sq * dy
            total += r
        out[i, 0], out[i, 1], out[i, 2] = push_x, push_y, total


@njit(nogil=True, fastmath=True, error_model="numpy")
def told_apart(x: Array, y: Array, terms: tuple, with_value: bool, out: Array) -> None:
    """out[i] = sum_j (g dx, g dy, log(u / t)), g = 1 / (t u), t = a + b s_ij, u = r + b s_ij, j not i.

    terms is (a, b, r); the logarithms, which cost most, are zero where they are not wanted.
    """
    a, b, rest = terms
    for i in range(len(x)):
        x_i, y_i = x[i], y[i]
        push_x = push_y = x.dtype.type(0)
        total = 0.0
        for j in range(len(x)):
            dx, dy = x_i - x[j], y_i - y[j]
            scaled = b * (dx * dx + dy * dy)
            g = x.dtype.type(1) / ((a + scaled) * (rest + scaled))
            push_x += g * dx
            push_y += g * dy
        if with_value:
            for j in range(len(x)):
                if j != i:
                    dx, dy = x_i - x[j], y_i - y[j]
                    scaled = b * (dx * dx + dy * dy)
                    total += np.log1p((rest - a) / (a + scaled))
        out[i, 0], out[i, 1], out[i, 2] = push_x, push_y, total


@njit(nogil=True, fastmath=True, error_model="numpy")
def sums_told(x: Array, y: Array, edges: tuple, terms: tuple) -> tuple[float, float, float, float]:
    """(sum of v, of v (1 - v), over all pairs of two rows, the same over edges by their weights), v = 1 / (a + b s)."""
    (indptr, indices, weights), (a, b) = edges, terms
    one = x.dtype.type(1)
    total = slopes = of_edges = slopes_of_edges = 0.0
    for i in range(len(x)):
        x_i, y_i = x[i], y[i]
        sum_v = sum_sq = x.dtype.type(0)
        for j in range(len(x)):
            dx, dy = x_i - x[j], y_i - y[j]
            v = one / (a + b * (dx * dx + dy * dy))
            sum_v += v
            sum_sq += v * v
        total += sum_v - one / a
        slopes += sum_v - sum_sq - (one / a) * (one - one / a)
        for e in range(indptr[i], indptr[i + 1]):
            dx, dy = x_i - x[indices[e]], y_i - y[indices[e]]
            v = one / (a + b * (dx * dx + dy * dy))
            of_edges += weights[e] * v
            slopes_of_edges += weights[e] * v * (one - v)
    return total, slopes, of_edges, slopes_of_edges


@njit(nogil=True, fastmath=True, error_model="numpy")
def powers(w: Array, kernel: tuple, series: tuple, spare: tuple, k: Array, h: Array) -> None:
    """k = 1 / (c + a w^b) and h = -dk / dw, elementwise in single precision; kernel is (a, b, c).

    w^b = 2^(b log2 w), of which the exponents' bits give the whole numbers and series of `power_series` the rest: so
    all of it runs on several numbers at once. Arrays come with views of their bits, as pairs in spare.
    """
    (a, b, c), (logs, exps), ((bits, rest, rest_bits), whole) = kernel, series, spare
    one, least, most = w.dtype.type(1), w.dtype.type(-120), w.dtype.type(120)
    for j in range(len(w)):
        rest_bits[j] = (bits[j] & np.int32(0x7FFFFF)) | np.int32(0x3F800000)
        whole[j] = (bits[j] >> np.int32(23)) - np.int32(127)
    for j in range(len(w)):
        m = rest[j] - one
        log = logs[7]
        log = ((log * m + logs[6]) * m + logs[5]) * m + logs[4]
        log = (((log * m + logs[3]) * m + logs[2]) * m + logs[1]) * m + logs[0]
        exponent = max(least, min(b * (np.float32(whole[j]) + log * m), most))
        low = np.floor(exponent)
        f = exponent - low
        rest[j] = ((((exps[5] * f + exps[4]) * f + exps[3]) * f + exps[2]) * f + exps[1]) * f + exps[0]
        whole[j] = (np.int32(low) + np.int32(127)) << np.int32(23)
    factor = whole.view(np.float32)
    for j in range(len(w)):
        power = a * rest[j] * factor[j]
        k[j] = one / (c + power)
        h[j] = b * power * k[j] * k[j] / w[j]


@njit(nogil=True, fastmath=True, error_model="numpy")
def power_pairs(points: Array, charges: Array, e: float, kernel: tuple, series: tuple, out: Array) -> None:
    """Add sum_j c_j (k, -2 h dx, -2 h dy) to out[:, i], each pair once, of w = s_ij + e."""
    n = points.shape[1]  # arrays of their own: loops over rows of one would take a number at a time
    all_w, all_m = np.empty(n, points.dtype), np.empty(n, points.dtype)
    all_k, all_h = np.empty(n, points.dtype), np.empty(n, points.dtype)
    all_w_bits, all_m_bits, all_whole = all_w.view(np.int32), all_m.view(np.int32), np.empty(n, np.int32)
    for i in range(n):
        x, y, c, left = points[0, i:], points[1, i:], charges[i:], n - i
        at_x, at_y, at_c = x[0], y[0], c[0]
        w, m, k, h = all_w[:left], all_m[:left], all_k[:left], all_h[:left]
        for j in range(left):
            dx, dy = at_x - x[j], at_y - y[j]
            w[j] = dx * dx + dy * dy + e
        powers(w, kernel, series, ((all_w_bits[:left], m, all_m_bits[:left]), all_whole[:left]), k, h)
        total = push_x = push_y = points.dtype.type(0)
        for j in range(left):
            pushed = c[j] * h[j]
            total += c[j] * k[j]
            push_x += pushed * (at_x - x[j])
            push_y += pushed * (at_y - y[j])
        sums, pushes_x, pushes_y = out[0, i:], out[1, i:], out[2, i:]
        for j in range(left):
            pushed = 2 * at_c * h[j]
            sums[j] += at_c * k[j]
            pushes_x[j] += pushed * (at_x - x[j])
            pushes_y[j] += pushed * (at_y - y[j])
        sums[0] += total - at_c * k[0]
        pushes_x[0] -= 2 * push_x
        pushes_y[0] -= 2 * push_y


@njit(nogil=True, fastmath=True, error_model="numpy")
def power_pull(
    z: Array, indptr: Array, indices: Array, weights: Array, e: float, kernel: tuple, series: tuple, out: Array
) -> None:
    """out[i] = 4 sum_j w_ij (d log k / ds) (z_i - z_j) over the edges of each row, of w = s_ij + e."""
    most = np.int64(0)
    for i in range(len(z)):
        most = max(most, np.int64(indptr[i + 1] - indptr[i]))
    all_w, all_m = np.empty(most, z.dtype), np.empty(most, z.dtype)
    all_k, all_h = np.empty(most, z.dtype), np.empty(most, z.dtype)
    all_w_bits, all_m_bits, all_whole = all_w.view(np.int32), all_m.view(np.int32), np.empty(most, np.int32)
    for i in range(len(z)):
        others, of_edges = indices[indptr[i] : indptr[i + 1]], weights[indptr[i] : indptr[i + 1]]
        left, x, y = len(others), z[i, 0], z[i, 1]
        w, m, k, h = all_w[:left], all_m[:left], all_k[:left], all_h[:left]
        for j in range(left):
            w[j] = (x - z[others[j], 0]) ** 2 + (y - z[others[j], 1]) ** 2 + e
        powers(w, kernel, series, ((all_w_bits[:left], m, all_m_bits[:left]), all_whole[:left]), k, h)
        pull_x = pull_y = z.dtype.type(0)
        for j in range(left):
            g = of_edges[j] * h[j] / k[j]
            pull_x += g * (x - z[others[j], 0])
            pull_y += g * (y - z[others[j], 1])
        out[i, 0], out[i, 1] = -4 * pull_x, -4 * pull_y


@njit(nogil=True, fastmath=True, error_model="numpy")
def power_map(z: Array, edges: tuple, factors: tuple, kernel: tuple, series: tuple, out: Array) -> float:
    """out = the gradient of log Z - f sum_ij w_ij log k_ij, of w = s_ij + e; returns Z, at least the floor.

    factors is (f, e, floor), edges is (indptr, indices, weights) of each pair once, the later row as the index.
    """
    (indptr, indices, weights), (exaggeration, e, floor), n = edges, factors, len(z)
    x, y = z[:, 0].copy(), z[:, 1].copy()
    push_x, push_y, pull_x, pull_y = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    all_w, all_m, all_k, all_h = np.empty_like(x), np.empty_like(x), np.empty_like(x), np.empty_like(x)
    all_w_bits, all_m_bits, all_whole = all_w.view(np.int32), all_m.view(np.int32), np.empty(n, np.int32)
    half = 0.0
    for i in range(n):
        at_x, at_y, x_of, y_of, left = x[i], y[i], x[i + 1 :], y[i + 1 :], n - i - 1
        w, m, k, h = all_w[:left], all_m[:left], all_k[:left], all_h[:left]
        for j in range(left):
            dx, dy = at_x - x_of[j], at_y - y_of[j]
            w[j] = dx * dx + dy * dy + e
        powers(w, kernel, series, ((all_w_bits[:left], m, all_m_bits[:left]), all_whole[:left]), k, h)
        total = own_x = own_y = z.dtype.type(0)
        for j in range(left):
            total += k[j]
            own_x += h[j] * (at_x - x_of[j])
            own_y += h[j] * (at_y - y_of[j])
        half += total
        push_x[i] += own_x
        push_y[i] += own_y
        of_x, of_y = push_x[i + 1 :], push_y[i + 1 :]
        for j in range(left):
            of_x[j] -= h[j] * (at_x - x_of[j])
            of_y[j] -= h[j] * (at_y - y_of[j])
        for at in range(indptr[i], indptr[i + 1]):
            j = indices[at] - i - 1
            g = weights[at] * h[j] / k[j]
            dx, dy = g * (at_x - x_of[j]), g * (at_y - y_of[j])
            pull_x[i] += dx
            pull_y[i] += dy
            pull_x[i + 1 + j] -= dx
            pull_y[i + 1 + j] -= dy
    total_of_all = max(2 * half, floor)
    per_sum, four = z.dtype.type(4 / total_of_all), z.dtype.type(4) * exaggeration
    for i in range(n):
        out[i, 0] = four * pull_x[i] - per_sum * push_x[i]
        out[i, 1] = four * pull_y[i] - per_sum * push_y[i]
    return total_of_all


@njit(nogil=True, fastmath=True, error_model="numpy")
def extent(z: Array) -> tuple[tuple[float, float], tuple[float, float]]:
    """((lowest, highest) of the first column, the same of the second)."""
    low_x = high_x = z[0, 0]
    low_y = high_y = z[0, 1]
    for i in range(len(z)):
        low_x, high_x = min(low_x, z[i, 0]), max(high_x, z[i, 0])
        low_y, high_y = min(low_y, z[i, 1]), max(high_y, z[i, 1])
    return (low_x, high_x), (low_y, high_y)


@njit(fastmath=True, error_model="numpy", inline="always")
def _spline(t: float, number: type) -> tuple[float, float, float, float]:
    """Cubic B-spline weights of the nodes -1, 0, 1, 2 at t in [0, 1), in its precision: number makes its type."""
    u, sq, sixth, third = number(1) - t, t * t, number(1 / 6), number(1 / 3)
    cube, mirrored = sq * t * sixth, u * u * u * sixth
    middle = number(2) * third - sq
    return mirrored, middle + number(3) * cube, number(1) - mirrored - middle - number(4) * cube, cube


@njit(fastmath=True, error_model="numpy", inline="always")
def _spline_slopes(t: float, number: type) -> tuple[float, float, float, float]:
    """Their derivatives."""
    u, half = number(1) - t, number(0.5)
    first, last = -half * u * u, half * t * t
    second = number(3) * last - number(2) * t
    return first, second, -first - second - last, last


@njit(nogil=True, fastmath=True, error_model="numpy")
def spread(z: Array, origin: Array, per_unit: float, charges: Array, first: int, last: int, grid: Array) -> None:
    """Add charges to the 4 x 4 nodes around their points (z - origin) * per_unit."""
    number = z.dtype.type
    for i in range(first, last):
        u, v = (z[i, 0] - origin[0]) * per_unit, (z[i, 1] - origin[1]) * per_unit
        a, b = int(u), int(v)
        at_u, at_v = _spline(u - number(a), number), _spline(v - number(b), number)
        for p in range(4):
            amount = charges[i] * at_u[p]
            for q in range(4):
                grid[a - 1 + p, b - 1 + q] += amount * at_v[q]


@njit(fastmath=True, error_model="numpy", inline="always")
def _read_at(
    x: float, y: float, origin: Array, per_unit: float, field: Array, number: type
) -> tuple[float, float, float]:
    """The field's value at ((x, y) - origin) * per_unit, and its derivatives with respect to x and y."""
    u, v = (x - origin[0]) * per_unit, (y - origin[1]) * per_unit
    a, b = int(u), int(v)
    at_u, at_v = _spline(u - number(a), number), _spline(v - number(b), number)
    along_u, along_v = _spline_slopes(u - number(a), number), _spline_slopes(v - number(b), number)
    value = slope_u = slope_v = number(0)
    for p in range(4):
        row = slope_row = number(0)
        for q in range(4):
            near = field[a - 1 + p, b - 1 + q]
            row += near * at_v[q]
            slope_row += near * along_v[q]
        value += row * at_u[p]
        slope_u += row * along_u[p]
        slope_v += slope_row * at_u[p]
    return value, slope_u * per_unit, slope_v * per_unit


@njit(nogil=True, fastmath=True, error_model="numpy")
def read(z: Array, origin: Array, per_unit: float, field: Array, first: int, last: int, out: Array) -> None:
    """out[i] = the field's value at (z_i - origin) * per_unit and its two derivatives with respect to z_i."""
    number = z.dtype.type
    for i in range(first, last):
        out[i, 0], out[i, 1], out[i, 2] = _read_at(z[i, 0], z[i, 1], origin, per_unit, field, number)


@njit(nogil=True, fastmath=True, error_model="numpy")
def settle(
    starts: Array, edges: tuple, kernel: tuple, grid: tuple, descent: tuple, first: int, last: int, z: Array
) -> None:
    """Move each z_i down -sum_j w_ij log k(z_i, keys_j) + log Phi(z_i), Phi splined on a grid, from its best start.

    edges is (columns, weights, keys), the same number of each row; kernel is (a, b, c) with d log k / ds =
    c / (a + b s); grid is (field, origin, per_unit, least Phi, lowest and highest coordinates); descent is (steps,
    rate, momentum, longest step).
    """
    columns, weights, keys = edges
    (a, b, c), (field, origin, per_unit, floor, low, high), (n_steps, rate, momentum, max_step) = kernel, grid, descent
    for i in range(first, last):
        least = np.float64(1e300)
        x = y = 0.0
        for s in range(starts.shape[1]):
            start_x, start_y = starts[i, s, 0], starts[i, s, 1]
            loss = np.log(max(_read_at(start_x, start_y, origin, per_unit, field, np.float64)[0], floor))
            for e in range(columns.shape[1]):
                dx, dy = start_x - keys[columns[i, e], 0], start_y - keys[columns[i, e], 1]
                sq = dx * dx + dy * dy
                loss -= weights[i, e] * c * (np.log1p(sq / a) if b > 0 else sq)
            if loss < least:
                least, x, y = loss, start_x, start_y
        step_x = step_y = 0.0
        for _ in range(n_steps):
            phi, slope_x, slope_y = _read_at(x, y, origin, per_unit, field, np.float64)
            slope_x, slope_y = slope_x / max(phi, floor), slope_y / max(phi, floor)
            for e in range(columns.shape[1]):
                dx, dy = x - keys[columns[i, e], 0], y - keys[columns[i, e], 1]
                g = 2 * c * weights[i, e] / (a + b * (dx * dx + dy * dy))
                slope_x -= g * dx
                slope_y -= g * dy
            step_x, step_y = momentum * step_x - rate * slope_x, momentum * step_y - rate * slope_y
            shorten = min(1.0, max_step / np.sqrt(step_x * step_x + step_y * step_y + 1e-300))
            step_x, step_y = step_x * shorten, step_y * shorten
            x, y = min(max(x + step_x, low[0]), high[0]), min(max(y + step_y, low[1]), high[1])
        z[i, 0], z[i, 1] = x, y
