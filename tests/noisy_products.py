"""A pytest plugin: torch's matrix products on the CPU round as no processor at hand does. `-p noisy_products`.

Each entry of a product of floats gets an error within a rounding of the sum of |a_ik b_kj|, which an order of sums may
make. It is a function of the entry, so that equal products have equal errors, and none where all terms are zero.
"""

import warnings

import torch

_LIBRARY = []


def _noisy(exact, bound):
    """The product with an error of at most a rounding of its terms, whose part between -1 and 1 follows its bits."""
    if not exact.is_floating_point():
        return exact
    part = torch.frexp(exact).mantissa.double().mul(1e6).sin()
    return exact + (part * torch.finfo(exact.dtype).eps * bound.double()).to(exact.dtype)


def _bmm(a, b):
    nothing = a.new_zeros(())
    exact = torch.baddbmm(nothing, a, b, beta=0)  # the product that is left as it is, from which all others come here
    return _noisy(exact, torch.baddbmm(nothing, a.abs(), b.abs(), beta=0))


def _mm(a, b):
    return _bmm(a[None], b[None])[0]


def _addmm(bias, a, b, *, beta=1, alpha=1):
    product = _mm(a, b)
    return (product if alpha == 1 else alpha * product) + (0 if beta == 0 else bias if beta == 1 else beta * bias)


def _mv(a, x):
    return _mm(a, x[:, None])[:, 0]


def _dot(x, y):
    return _mm(x[None], y[:, None])[0, 0]


def _into(function):
    """The variant that writes into `out`."""

    def write(*args, out, **options):
        result = function(*args, **options)
        if out.shape != result.shape:
            out.resize_(result.shape)
        return out.copy_(result)

    return write


def pytest_configure():
    """Put the noisy products in the place of torch's, for all threads and for what runs backward."""
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that it has a kernel already
        for name, function in {"bmm": _bmm, "mm": _mm, "addmm": _addmm, "mv": _mv, "dot": _dot}.items():
            library.impl(name, function, "CPU")
            library.impl(f"{name}.out", _into(function), "CPU")
    _LIBRARY.append(library)


def pytest_report_header():
    """Say so."""
    return "torch's matrix products are noisy"
