"""Compiled loops over edges and points of 1-D and 2-D maps on the CPU, kept on disk between processes.

Points come as two contiguous columns; the second holds zeros where the map has one dimension. Comparisons with
infinity and NaN are kept out, so that fast arithmetic is safe.
"""

import numpy as np
from numba import njit, prange


@njit(parallel=True, fastmath=True, cache=True)
def student_t_edges(x, y, indptr, indices, weights, df, out):
    """out[i] = sum_j w_ij (h dx, h dy, log k) with k = (1 + s/df)^(-(df+1)/2) and h = d log k / ds."""
    half = (df + 1) / 2
    log_df = np.log(df)
    for i in prange(len(x)):
        xi, yi = x[i], y[i]
        pull_x = pull_y = value = mass = x.dtype.type(0)
        for e in range(indptr[i], indptr[i + 1]):
            j, w = indices[e], weights[e]
            dx, dy = xi - x[j], yi - y[j]
            u = df + dx * dx + dy * dy
            g = w / u
            pull_x += g * dx
            pull_y += g * dy
            mass += w
            value += w * np.log(u)
        out[i, 0], out[i, 1], out[i, 2] = -half * pull_x, -half * pull_y, half * (mass * log_df - value)


@njit(parallel=True, fastmath=True, cache=True)
def gaussian_edges(x, y, indptr, indices, weights, slope, out):
    """out[i] = sum_j w_ij (h dx, h dy, log k) with log k = h s, h constant."""
    for i in prange(len(x)):
        xi, yi = x[i], y[i]
        pull_x = pull_y = value = x.dtype.type(0)
        for e in range(indptr[i], indptr[i + 1]):
            j, w = indices[e], weights[e]
            dx, dy = xi - x[j], yi - y[j]
            pull_x += w * dx
            pull_y += w * dy
            value += w * (dx * dx + dy * dy)
        out[i, 0], out[i, 1], out[i, 2] = slope * pull_x, slope * pull_y, slope * value


@njit(fastmath=True, inline="always")
def _spline(t):
    """Cubic B-spline weights of the nodes -1, 0, 1, 2 at t in [0, 1)."""
    u, sq = 1 - t, t * t
    return u * u * u / 6, (3 * t - 6) * sq / 6 + 2 / 3, (1 + 3 * (t + sq - t * sq)) / 6, t * sq / 6


@njit(fastmath=True, inline="always")
def _spline_slopes(t):
    """Their derivatives."""
    u, sq = 1 - t, t * t
    return -u * u / 2, (3 * t - 4) * t / 2, (1 + 2 * t - 3 * sq) / 2, sq / 2


@njit(fastmath=True, cache=True)
def spread(u, v, charges, grid):
    """Add each charge to the 4 x 4 nodes around its place (u, v), in units of the grid."""
    for i in range(len(u)):
        a, b = int(u[i]), int(v[i])
        at_u, at_v = _spline(u[i] - a), _spline(v[i] - b)
        for p in range(4):
            amount = charges[i] * at_u[p]
            for q in range(4):
                grid[a - 1 + p, b - 1 + q] += amount * at_v[q]


@njit(parallel=True, fastmath=True, cache=True)
def read(u, v, field, out):
    """out[i] = the field's value at (u_i, v_i) and its two derivatives, in units of the grid."""
    for i in prange(len(u)):
        a, b = int(u[i]), int(v[i])
        at_u, at_v = _spline(u[i] - a), _spline(v[i] - b)
        along_u, along_v = _spline_slopes(u[i] - a), _spline_slopes(v[i] - b)
        value = slope_u = slope_v = u.dtype.type(0)
        for p in range(4):
            row = slope_row = u.dtype.type(0)
            for q in range(4):
                near = field[a - 1 + p, b - 1 + q]
                row += near * at_v[q]
                slope_row += near * along_v[q]
            value += row * at_u[p]
            slope_u += row * along_u[p]
            slope_v += slope_row * at_u[p]
        out[i, 0], out[i, 1], out[i, 2] = value, slope_u, slope_v
