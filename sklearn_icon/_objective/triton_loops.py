"""Compiled loops over pairs of points on a GPU, whose sums stay in registers until they are a few numbers a row.

Points u are scaled so that s = |u_i - u_j|^2 leaves a kernel no more than its power p; b is its slope:

    k = exp(-s), b = 1        k = (1 + s)^(-p), b = 1 / (1 + s)        d log k / d u_i = -2 p b (u_i - u_j)

A program owns some rows and a span of keys, and writes its sums where no other does, so that they are the same at every
run. Offsets are differences of coordinates: equal rows are at distance zero. Importing this needs triton.
"""

import triton
import triton.language as tl


@triton.jit
def _points(z, items, n, D: tl.constexpr):
    """Columns of z, shape (D, items), zero past the last."""
    return tl.load(z + tl.arange(0, D)[:, None] * n + items[None, :], mask=(items < n)[None, :], other=0.0)


@triton.jit
def _offsets(z, z_rows, rows, keys, end, n, D: tl.constexpr):
    """(u_i - u_j, s, whether j is a key of i) of a tile; coordinates come first, so that a thread holds all."""
    offsets = z_rows[:, :, None] - _points(z, keys, n, D)[:, None, :]
    return offsets, tl.sum(offsets * offsets, axis=0), (rows[:, None] != keys[None, :]) & (keys < end)[None, :]


@triton.jit
def _log_kernel(sq, power, KIND: tl.constexpr):
    """(log k, b)."""
    if KIND == "gaussian":
        return -sq, tl.full(sq.shape, 1.0, sq.dtype)
    else:
        return -power * tl.log(1.0 + sq), 1.0 / (1.0 + sq)


@triton.jit
def _store_offsets(out, sums, rows, n, D: tl.constexpr):
    """Write the sums over the keys of a tile, shape (D, rows, keys), to columns of `out`."""
    tl.store(out + tl.arange(0, D)[:, None] * n + rows[None, :], tl.sum(sums, axis=2), mask=(rows < n)[None, :])


@triton.jit
def joint(z, power, out, n, span, D: tl.constexpr, KIND: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr):
    """sum_j k b (u_i - u_j), then sum_j k, of rows over a span of keys."""
    rows, start = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(1) * span
    end = tl.minimum(start + span, n)
    power, z_rows = tl.load(power), _points(z, rows, n, D)
    push = tl.zeros([D, ROWS, KEYS], z_rows.dtype)
    total = tl.zeros([ROWS, KEYS], z_rows.dtype)
    for first in range(start, end, KEYS):
        offsets, sq, taken = _offsets(z, z_rows, rows, first + tl.arange(0, KEYS), end, n, D)
        if KIND == "cauchy":
            slope = 1.0 / (1.0 + sq)
            kernel = tl.where(taken, slope, 0.0)
        else:
            log_kernel, slope = _log_kernel(sq, power, KIND)
            kernel = tl.where(taken, tl.exp(log_kernel), 0.0)
        total += kernel
        push += (kernel * slope)[None, :, :] * offsets
    out += tl.program_id(1) * (D + 1) * n
    _store_offsets(out, push, rows, n, D)
    tl.store(out + D * n + rows, tl.sum(total, axis=1), mask=rows < n)


@triton.jit
def row_log_sums(z, power, out, n, span, D: tl.constexpr, KIND: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr):
    """log sum_j k of rows over a span of keys, sums kept relative to the largest kernel so far."""
    rows, start = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(1) * span
    end = tl.minimum(start + span, n)
    power, z_rows = tl.load(power), _points(z, rows, n, D)
    largest = tl.full([ROWS, KEYS], float("-inf"), z_rows.dtype)
    total = tl.zeros([ROWS, KEYS], z_rows.dtype)
    for first in range(start, end, KEYS):
        _, sq, taken = _offsets(z, z_rows, rows, first + tl.arange(0, KEYS), end, n, D)
        log_kernel, _ = _log_kernel(sq, power, KIND)
        smaller = tl.where(log_kernel == largest, 1.0, tl.exp(-tl.abs(log_kernel - largest)))  # relative to the larger
        larger = taken & (log_kernel > largest)
        total = tl.where(larger, total * smaller + 1.0, total + tl.where(taken, smaller, 0.0))
        largest = tl.where(larger, log_kernel, largest)
    of_row = tl.max(largest, axis=1)
    excess = tl.where(largest == of_row[:, None], 0.0, largest - of_row[:, None])
    log_sum = of_row + tl.log(tl.sum(total * tl.exp(excess), axis=1))
    tl.store(out + tl.program_id(1) * n + rows, log_sum, mask=rows < n)


@triton.jit
def row_pushes(
    z, power, out, n, span, log_z, grad, D: tl.constexpr, KIND: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr
):
    """sum_j (g_i k / Z_i + g_j k / Z_j) b (u_i - u_j) of rows over a span of keys."""
    rows, start = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(1) * span
    end = tl.minimum(start + span, n)
    power, z_rows = tl.load(power), _points(z, rows, n, D)
    row_log_z = tl.load(log_z + rows, mask=rows < n, other=0.0)[:, None]
    row_grad = tl.load(grad + rows, mask=rows < n, other=0.0)[:, None]
    push = tl.zeros([D, ROWS, KEYS], z_rows.dtype)
    for first in range(start, end, KEYS):
        keys = first + tl.arange(0, KEYS)
        offsets, sq, taken = _offsets(z, z_rows, rows, keys, end, n, D)
        key_log_z = tl.load(log_z + keys, mask=keys < end, other=0.0)[None, :]
        key_grad = tl.load(grad + keys, mask=keys < end, other=0.0)[None, :]
        log_kernel, slope = _log_kernel(sq, power, KIND)
        weight = row_grad * tl.exp(log_kernel - row_log_z) + key_grad * tl.exp(log_kernel - key_log_z)
        push += tl.where(taken, weight * slope, 0.0)[None, :, :] * offsets
    _store_offsets(out + tl.program_id(1) * D * n, push, rows, n, D)


@triton.jit
def edges(z, out, indptr, indices, weights, D: tl.constexpr, KIND: tl.constexpr, EDGES: tl.constexpr):
    """sum_e w b (u_i - u_j), then sum_e w log k / p, over the edges of a row; z holds points in rows, shape (n, D)."""
    row = tl.program_id(0)
    first, last = tl.load(indptr + row), tl.load(indptr + row + 1)
    d = tl.arange(0, D)
    z_row = tl.load(z + row.to(tl.int64) * D + d)[:, None]
    pull = tl.zeros([D, EDGES], z_row.dtype)
    value = tl.zeros([EDGES], z_row.dtype)
    for start in range(first, last, EDGES):
        at = start + tl.arange(0, EDGES)
        taken = at < last
        keys = tl.load(indices + at, mask=taken, other=0).to(tl.int64)
        weight = tl.load(weights + at, mask=taken, other=0.0)
        offsets = z_row - tl.load(z + keys[None, :] * D + d[:, None])
        log_kernel, slope = _log_kernel(tl.sum(offsets * offsets, axis=0), 1.0, KIND)
        value += tl.where(taken, weight * log_kernel, 0.0)
        pull += (weight * slope)[None, :] * offsets
    out += row.to(tl.int64) * (D + 1)
    tl.store(out + d, tl.sum(pull, axis=1))
    tl.store(out + D, tl.sum(value, axis=0))


@triton.jit
def _weight(t, i: tl.constexpr):
    """The cubic B-spline weight of node i - 1 at t in [0, 1)."""
    if i == 0:
        return (1.0 - t) * (1.0 - t) * (1.0 - t) / 6.0
    elif i == 1:
        return (3.0 * t - 6.0) * t * t / 6.0 + 2.0 / 3.0
    elif i == 2:
        return (1.0 + 3.0 * (t + t * t - t * t * t)) / 6.0
    else:
        return t * t * t / 6.0


@triton.jit
def _slope(t, i: tl.constexpr):
    """Its derivative."""
    if i == 0:
        return (t - 1.0) * (1.0 - t) / 2.0
    elif i == 1:
        return (3.0 * t - 4.0) * t / 2.0
    elif i == 2:
        return (1.0 + 2.0 * t - 3.0 * t * t) / 2.0
    else:
        return t * t / 2.0


@triton.jit
def _on_grid(z, mesh, at, n, nodes):
    """(offset of the first of 4 x 4 nodes about points, where they are between the middle ones, 2-D)."""
    spacing = tl.load(mesh + 2)
    x = (tl.load(z + 2 * at, mask=at < n, other=0.0) - tl.load(mesh)) / spacing
    y = (tl.load(z + 2 * at + 1, mask=at < n, other=0.0) - tl.load(mesh + 1)) / spacing
    first = (tl.floor(x).to(tl.int32) - 1) * nodes + tl.floor(y).to(tl.int32) - 1
    return tl.where(at < n, first, 0), x - tl.floor(x), y - tl.floor(y)


@triton.jit(do_not_specialize=["n", "nodes"])
def spread(z, mesh, charges, grid, n, nodes, POINTS: tl.constexpr):
    """Add charges of 2-D points to a grid by splines; mesh is (origin, spacing)."""
    at = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    first, x, y = _on_grid(z, mesh, at, n, nodes)
    charge = tl.load(charges + at, mask=at < n, other=0.0)
    for i in tl.static_range(4):
        for j in tl.static_range(4):
            tl.atomic_add(grid + first + i * nodes + j, charge * _weight(x, i) * _weight(y, j), mask=at < n)


@triton.jit(do_not_specialize=["n", "nodes"])
def read(z, mesh, field, out, n, nodes, POINTS: tl.constexpr):
    """(value, gradient in units of the grid) of a field at 2-D points, in rows of three."""
    at = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    first, x, y = _on_grid(z, mesh, at, n, nodes)
    value, of_x, of_y = x * 0.0, x * 0.0, x * 0.0
    for i in tl.static_range(4):
        for j in tl.static_range(4):
            near = tl.load(field + first + i * nodes + j, mask=at < n, other=0.0)
            value += near * _weight(x, i) * _weight(y, j)
            of_x += near * _slope(x, i) * _weight(y, j)
            of_y += near * _weight(x, i) * _slope(y, j)
    tl.store(out + 3 * at, value, mask=at < n)
    tl.store(out + 3 * at + 1, of_x, mask=at < n)
    tl.store(out + 3 * at + 2, of_y, mask=at < n)
