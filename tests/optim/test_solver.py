import subprocess
import sys
import warnings
from itertools import pairwise
from math import cos, pi

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.manifold._t_sne import _gradient_descent

from sklearn_icon._optim import methods as _methods
from sklearn_icon._optim.methods import LBFGS, Adam, Momentum
from sklearn_icon._optim.solver import minimize

SOLVERS = {"momentum": Momentum, "adam": Adam, "lbfgs": LBFGS}
OPTIONS = {
    "momentum": {"learning_rate": 0.1, "momentum": 0.5},
    "adam": {"learning_rate": 0.1},
    "lbfgs": {},
}
LAST = {"momentum": "max_iter", "adam": "completed", "lbfgs": "max_iter"}
each_method = pytest.mark.parametrize("method", list(OPTIONS))
CENTRE = torch.tensor([[1.0, -2.0], [0.5, 3.0], [0.0, 4.0]], dtype=torch.float64)
SHIFT = torch.tensor([2.0, -1.0], dtype=torch.float64)
CURVATURE = torch.tensor([[1.0, 2.0], [0.5, 1.0], [3.0, 1.5]], dtype=torch.float64)


def start(dtype=torch.float64):
    """Two parameters away from the minimum."""
    rng = np.random.default_rng(0)
    return [torch.tensor(rng.normal(size=shape), dtype=dtype, requires_grad=True) for shape in ((3, 2), (2,))]


def quadratic(params):
    """1/2 sum a (x - c)^2 + 1/2 |y - s|^2, whose minimum is 0."""
    x, y = params
    return (CURVATURE * (x - CENTRE) ** 2).sum() / 2 + (y - SHIFT).square().sum() / 2


def run(method, max_iter, *, objective=None, params=None, on_step=None, **options):
    """(result, parameters, parameters after each step) of a run on the quadratic."""
    params = start() if params is None else params
    steps = []

    def record(n_iter, loss):
        steps.append([param.detach().clone() for param in params])
        return on_step is not None and on_step(n_iter, loss)

    function = (lambda: quadratic(params)) if objective is None else (lambda: objective(params))
    solver = SOLVERS[method](**(OPTIONS[method] | options))
    result = minimize(function, params, solver, max_iter=max_iter, on_step=record)
    return result, params, steps


def assert_params(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        assert_array_equal(a.detach(), b.detach())


# --- every method -------------------------------------------------------------------------------------------------


@each_method
def test_a_quadratic_is_minimised(method):
    result, params, _ = run(method, 400)
    assert_allclose(params[0].detach(), CENTRE, atol=1e-4)
    assert_allclose(params[1].detach(), SHIFT, atol=1e-4)
    assert result.loss < 1e-7
    assert result.status == ("converged" if method == "lbfgs" else LAST[method])
    assert all(param.requires_grad for param in params)


@each_method
def test_what_is_reported(method):
    losses = []
    result, params, steps = run(method, 7, on_step=lambda n_iter, loss: losses.append((n_iter, loss)))
    assert result.n_iter == len(result.loss_curve) == len(steps) <= 7
    assert [n_iter for n_iter, _ in losses] == list(range(1, result.n_iter + 1))
    assert_array_equal([loss for _, loss in losses], result.loss_curve)
    assert result.loss == result.loss_curve[-1]
    assert_params(params, steps[-1])
    values = [quadratic(at).item() for at in [start(), *steps]]
    assert_allclose(result.loss_curve, values[1:] if method == "lbfgs" else values[:-1], rtol=1e-13)


@each_method
def test_the_same_call_gives_the_same_bits(method):
    first, second = run(method, 20), run(method, 20)
    assert_array_equal(first[0].loss_curve, second[0].loss_curve)
    assert_params(first[1], second[1])


@each_method
@pytest.mark.parametrize("n", [1, 3])
def test_on_step_stops(method, n):
    result, params, steps = run(method, 50, on_step=lambda n_iter, loss: n_iter == n)
    assert (result.status, result.n_iter, len(steps)) == ("interrupted", n, n)
    assert_params(params, steps[-1])


@each_method
def test_no_more_steps_than_allowed(method):
    result, _, _ = run(method, 2)
    assert (result.status, result.n_iter) == (LAST[method], 2)


@each_method
def test_single_precision(method):
    params = start(torch.float32)
    centre, shift = CENTRE.float(), SHIFT.float()
    result, params, _ = run(
        method, 400, params=params, objective=lambda p: (p[0] - centre).square().sum() + (p[1] - shift).square().sum()
    )
    assert params[0].dtype == torch.float32
    assert_allclose(params[0].detach(), centre, atol=1e-3)
    assert result.loss < 1e-6


# --- what goes wrong ----------------------------------------------------------------------------------------------


def failing(n_steps, failure):
    """An objective that fails at its first evaluation after n_steps whole steps have been counted."""
    counted = [0]

    def objective(params):
        return failure(params) if counted[0] == n_steps else quadratic(params)

    def on_step(n_iter, loss):
        counted[0] = n_iter

    return objective, on_step


def interrupt(params):
    raise KeyboardInterrupt


FAILURES = {
    "nan": lambda params: quadratic(params) * float("nan"),
    "infinite": lambda params: quadratic(params) + float("inf"),
    "nan-gradient": lambda params: (params[0] * 0).sum().sqrt() * 0 + quadratic(params),
}


@pytest.mark.parametrize("failure", list(FAILURES))
@pytest.mark.parametrize("method", ["momentum", "adam"])
@pytest.mark.parametrize("n_steps", [1, 4, 60])
def test_the_last_finite_state_is_kept(method, n_steps, failure):
    objective, on_step = failing(n_steps, FAILURES[failure])
    params, steps = start(), []

    def follow(n_iter, loss):
        steps.append([param.detach().clone() for param in params])
        on_step(n_iter, loss)

    told = f"not finite .*at iteration {n_steps}, and .* at half the rate at iteration {n_steps}; lower learning_rate"
    with pytest.raises(FloatingPointError, match=told):
        run(method, 100, objective=objective, params=params, on_step=follow)
    # What the last step reached is what failed: the state before had a finite loss.
    assert_params(params, [start(), *steps][n_steps - 1])


@pytest.mark.parametrize("method", ["momentum", "adam"])
def test_a_run_goes_on_once_at_half_the_rate(method):
    calls, params = [0], start()

    def objective(p):
        calls[0] += 1
        return quadratic(p) * (torch.nan if calls[0] == 4 else 1.0)

    with pytest.warns(RuntimeWarning, match="at iteration 3; training went on .* at half the rate. To avoid this, low"):
        result, params, steps = run(method, 40, objective=objective, params=params)
    assert (result.status, result.n_iter) == (LAST[method], 40)
    halved, expected, _ = run(method, 37, params=[p.detach().requires_grad_() for p in steps[1]], learning_rate=0.05)
    assert_params(params, expected)
    assert_array_equal(result.loss_curve[3:], halved.loss_curve)


@pytest.mark.parametrize("failure", list(FAILURES))
def test_the_last_finite_state_of_a_line_search_is_kept(failure):
    objective, on_step = failing(2, FAILURES[failure])
    params, steps = start(), []

    def follow(n_iter, loss):
        steps.append([param.detach().clone() for param in params])
        on_step(n_iter, loss)

    with pytest.raises(FloatingPointError, match="at iteration 2, and from the last finite state at iteration 2; sca"):
        run("lbfgs", 100, objective=objective, params=params, on_step=follow)
    assert_params(params, steps[-1])


def test_what_changes_beside_parameters_goes_back_with_them():
    params, mean, calls = start(), torch.zeros(2), [0]

    def loss():
        mean.add_(1.0)
        calls[0] += 1
        return quadratic(params) * (torch.nan if calls[0] > 4 else 1.0)

    with pytest.raises(FloatingPointError, match=r"at iteration 4, .* at iteration 4"):
        minimize(loss, params, Adam(0.1), max_iter=10, kept=[mean])
    assert_array_equal(mean, [3.0, 3.0])  # as before the step that led to NaN


@each_method
def test_nothing_finite_at_all(method):
    params = start()
    with pytest.raises(FloatingPointError, match="the loss was not finite but nan at iteration 0"):
        run(method, 10, objective=FAILURES["nan"], params=params)
    assert_params(params, start())


@pytest.mark.parametrize("method", ["momentum", "adam"])
def test_divergence_ends_in_a_finite_state(method):
    params = [torch.tensor([1.0], requires_grad=True)]
    with pytest.raises(FloatingPointError, match=r"at iteration .*; lower learning_rate, or scale X\."):
        run(method, 500, params=params, learning_rate=1e4, objective=lambda p: p[0].square().exp().sum())
    assert torch.isfinite(params[0]).all()


@each_method
def test_unknown_options_are_refused(method):
    with pytest.raises(TypeError, match="toll"):
        run(method, 5, toll=1e-9)


@each_method
@pytest.mark.parametrize("n_steps", [0, 1, 4])
def test_an_interrupt_keeps_the_last_whole_step(method, n_steps):
    objective, on_step = failing(n_steps, interrupt)
    with pytest.warns(RuntimeWarning, match=f"interrupted at iteration {n_steps}; the last whole step is kept"):
        result, params, steps = run(method, 100, objective=objective, on_step=on_step)
    assert (result.status, result.n_iter) == ("interrupted", n_steps)
    assert_params(params, [start(), *steps][-1])


@each_method
def test_an_interrupt_within_on_step(method):
    def on_step(n_iter, loss):
        if n_iter == 3:
            raise KeyboardInterrupt

    with pytest.warns(RuntimeWarning, match="interrupted at iteration 3"):
        result, params, steps = run(method, 100, on_step=on_step)
    assert (result.status, result.n_iter) == ("interrupted", 3)
    assert_params(params, steps[-1])


def test_an_interrupt_within_a_step(monkeypatch):
    step = _methods._AdamStep.__call__

    def interrupted(self, grads, rate):
        if self.n_steps == 3:
            self.params[0].fill_(99.0)
            raise KeyboardInterrupt
        return step(self, grads, rate)

    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="interrupted at iteration 3")
        patch.setattr(_methods._AdamStep, "__call__", interrupted)
        result, params, steps = run("adam", 100)
    assert (result.status, result.n_iter) == ("interrupted", 3)
    assert_params(params, steps[-1])


def test_an_interrupt_within_a_line_search():
    """Rosenbrock's function makes line searches of several evaluations."""
    params = [torch.tensor([-1.2, 1.0], dtype=torch.float64, requires_grad=True)]
    since_step, steps = [0], []

    def objective():
        since_step[0] += 1
        if since_step[0] == 3 and steps:
            raise KeyboardInterrupt
        x, y = params[0]
        return 100 * (y - x**2) ** 2 + (1 - x) ** 2

    def on_step(n_iter, loss):
        since_step[0] = 0
        steps.append(params[0].detach().clone())

    with pytest.warns(RuntimeWarning, match="interrupted"):
        result = minimize(objective, params, LBFGS(), max_iter=200, on_step=on_step)
    assert result.status == "interrupted"
    assert_array_equal(params[0].detach(), steps[-1])


# --- momentum -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("learning_rate", [0.01, 0.3])
@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_momentum_descends_as_scikit_learn(learning_rate, momentum):
    a, c = CURVATURE.numpy().ravel(), CENTRE.numpy().ravel()

    def objective(x, compute_error=True):
        return 0.5 * np.sum(a * (x - c) ** 2), a * (x - c)

    params = start()[:1]
    options = {"learning_rate": learning_rate, "momentum": momentum}
    _, params, _ = run(
        "momentum", 60, params=params, objective=lambda p: (CURVATURE * (p[0] - CENTRE) ** 2).sum() / 2, **options
    )
    expected, _, _ = _gradient_descent(
        objective, start()[0].detach().numpy().ravel(), 0, 60, min_grad_norm=0, n_iter_without_progress=100, **options
    )
    assert_allclose(params[0].detach().numpy().ravel(), expected, rtol=1e-12)


def test_first_steps_by_hand():
    params = [torch.tensor([[3.0]], dtype=torch.float64, requires_grad=True)]
    _, _, steps = run(
        "momentum", 3, params=params, objective=lambda p: p[0].square().sum() / 2, learning_rate=0.5, momentum=0.5
    )
    x, velocity, gain, expected = 3.0, 0.0, 1.0, []
    for _ in range(3):
        gain = gain + 0.2 if velocity * x < 0 else max(0.8 * gain, 0.01)
        velocity = 0.5 * velocity - 0.5 * gain * x
        x += velocity
        expected.append(x)
    assert_allclose([step[0].item() for step in steps], expected, rtol=1e-14)


def test_no_row_moves_further_than_max_step():
    params = [torch.tensor([[1e6, -1e6], [0.1, 0.0], [0.0, 30.0]], dtype=torch.float64, requires_grad=True)]
    before = params[0].detach().clone()

    def objective(p):
        return p[0].square().sum() / 2

    _, _, steps = run("momentum", 30, params=params, objective=objective, momentum=0.9, max_step=2.0)
    places = [before, *(step[0] for step in steps)]
    moves = torch.stack([(b - a).norm(dim=1) for a, b in pairwise(places)])
    assert (moves <= 2.0 * (1 + 1e-9)).all()
    assert_allclose(moves[:, 0], 2.0, rtol=1e-9)
    assert (moves[:, 1] < 0.1).all()
    first = (places[1] - places[0])[0]
    assert_allclose(first, [-np.sqrt(2), np.sqrt(2)], rtol=1e-9)  # the direction is kept


def test_min_grad_norm_stops_at_a_check():
    def norm(places):
        leaves = [place.clone().requires_grad_() for place in places]
        grads = torch.autograd.grad(quadratic(leaves), leaves)
        return sum(grad.square().sum() for grad in grads).sqrt().item()

    _, _, steps = run("momentum", 400, learning_rate=0.01)
    at_checks = {n: norm(steps[n - 2]) for n in range(50, 401, 50)}  # the gradient that the n-th step took
    threshold = at_checks[150] * 1.01
    assert at_checks[100] > threshold
    result, params, _ = run("momentum", 400, learning_rate=0.01, min_grad_norm=threshold)
    assert (result.status, result.n_iter) == ("converged", 150)
    assert_params(params, steps[149])
    assert run("momentum", 400, learning_rate=0.01, min_grad_norm=0.0)[0].status == "max_iter"


@pytest.mark.parametrize(("patience", "stop"), [(-1, 100), (0, 100), (49, 100), (120, 150), (None, 300), (299, 300)])
def test_no_progress_stops_at_a_check(patience, stop):
    params = start()

    def gradient(with_loss):
        return 1.0, torch.autograd.grad(quadratic(params), params)  # what is recorded never improves

    result, _, _ = run("momentum", 300, params=params, gradient=gradient, n_iter_without_progress=patience)
    assert result.n_iter == stop
    assert result.status == ("converged" if stop < 300 else "max_iter")
    assert_array_equal(result.loss_curve, 1.0)


def test_the_loss_of_a_gradient_is_asked_for_now_and_then():
    params, asked = start(), []

    def gradient(with_loss):
        asked.append(with_loss)
        value = quadratic(params)
        return float(value.detach()) if with_loss else None, torch.autograd.grad(value, params)

    result, *_ = run("momentum", 10, params=params, gradient=gradient, loss_every=4)
    _, _, expected = run("momentum", 10)
    assert_params(params, expected[-1])
    assert asked == [i % 4 == 0 for i in range(10)]
    every = run("momentum", 10)[0].loss_curve
    assert_allclose(result.loss_curve, every[::4], rtol=1e-12)
    assert result.iterations.tolist() == [1, 5, 9]


def test_backtracking_halves_the_rate_where_the_loss_rises():
    def objective(p):
        return p[0].square().sum()

    def ends(**options):
        params = [torch.tensor([[1.0]], dtype=torch.float64, requires_grad=True)]
        result, _, steps = run("momentum", 40, params=params, objective=objective, momentum=0.0, **options)
        return result.loss_curve, steps

    diverging, _ = ends(learning_rate=1.5)
    assert diverging[1] > diverging[0]
    curve, steps = ends(learning_rate=1.5, backtrack=True)
    assert curve[-1] < 1e-6
    first, second = (step[0].item() for step in steps[:2])
    assert first == pytest.approx(1 - 1.5 * 0.8 * 2)
    assert second == pytest.approx(first - 0.75 * 0.8 * 2 * first)  # half the rate, the gain as at the start


# --- Adam ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("learning_rate", [0.01, 0.3])
def test_adam_with_a_cosine_rate(learning_rate):
    params = start()[:1]
    _, params, _ = run(
        "adam", 30, params=params, learning_rate=learning_rate,
        objective=lambda p: (CURVATURE * (p[0] - CENTRE) ** 2).sum() / 2,
    )  # fmt: skip
    x, a, c = start()[0].detach().numpy(), CURVATURE.numpy(), CENTRE.numpy()
    mean, square = np.zeros_like(x), np.zeros_like(x)
    for t in range(1, 31):
        gradient = a * (x - c)
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        rate = learning_rate * (1 + cos(pi * (t - 1) / 30)) / 2
        x = x - rate * (mean / (1 - 0.9**t)) / (np.sqrt(square / (1 - 0.999**t)) + 1e-8)
    assert_allclose(params[0].detach(), x, rtol=1e-9)


@pytest.mark.parametrize(("tol", "stop"), [(0.0, 300), (1e-4, 100)])
def test_adam_stops_where_the_mean_loss_stalls(tol, stop):
    def objective(params):
        value = quadratic(params)
        return value - value.detach() + 1  # the gradients of the quadratic, a value that stands

    result, _, _ = run("adam", 300, objective=objective, tol=tol)
    assert result.n_iter == stop
    assert result.status == ("converged" if tol else "completed")


def test_adam_goes_on_while_the_mean_loss_falls_by_more_than_tol():
    losses = run("adam", 400)[0].loss_curve
    means = losses.reshape(8, 50).mean(axis=1)
    for tol in (0.3, 3.0):
        stalls = [k for k in range(1, 8) if means[k - 1] - means[k] < tol * means[k]]
        result, _, _ = run("adam", 400, tol=tol)
        assert result.n_iter == (50 * (stalls[0] + 1) if stalls else 400)


# --- L-BFGS -------------------------------------------------------------------------------------------------------


def test_lbfgs_tolerance_is_of_the_gradient():
    n_iters = []
    for tol in (1e-8, 1.0):
        result, params, _ = run("lbfgs", 100, tol=tol)
        grads = torch.autograd.grad(quadratic(params), params)
        assert max(grad.abs().max() for grad in grads) <= tol
        assert result.status == "converged"
        n_iters.append(result.n_iter)
    assert n_iters[1] < n_iters[0]


def test_lbfgs_at_the_minimum():
    params = [CENTRE.clone().requires_grad_(), SHIFT.clone().requires_grad_()]
    result, params, _ = run("lbfgs", 10, params=params, objective=lambda p: 5 + quadratic(p))
    assert (result.status, result.n_iter, result.loss) == ("converged", 0, 5.0)
    assert_params(params, [CENTRE, SHIFT])


def test_lbfgs_on_a_valley():
    params = [torch.tensor([-1.2, 1.0], dtype=torch.float64, requires_grad=True)]
    result, params, _ = run(
        "lbfgs", 200, params=params, tol=1e-8,
        objective=lambda p: 100 * (p[0][1] - p[0][0] ** 2) ** 2 + (1 - p[0][0]) ** 2,
    )  # fmt: skip
    assert result.status == "converged"
    assert_allclose(params[0].detach(), [1, 1], rtol=1e-6)
    assert (np.diff(result.loss_curve) <= 0).all()


def test_lbfgs_returns_from_a_line_search_that_fails():
    """Uphill gradients: no trial is lower, and the places tried are not kept."""
    result, params, _ = run("lbfgs", 10, objective=lambda p: 2 * quadratic(p).detach() - quadratic(p))
    assert result.status == "converged"
    for param, before in zip(params, start(), strict=True):
        assert_allclose(param.detach(), before.detach(), rtol=1e-13)
    assert_allclose(result.loss, quadratic(start()).item(), rtol=1e-14)


def test_lbfgs_ends_where_another_size_of_the_gradient_is_small():
    def steps(**options):
        param = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        target, scale = torch.tensor([1.0, -2.0, 3.0]), torch.tensor([1.0, 10.0, 100.0])

        def loss():
            return (scale * (param - target).square() + (param - target) ** 4).sum()

        result = minimize(loss, [param], LBFGS(**options), max_iter=99)
        assert result.status == "converged"
        return result.n_iter, param.detach()

    loose, _ = steps(tol=1e-3, size=lambda gradient: 1e-2 * float(gradient.norm()))
    strict, solved = steps(tol=1e-3, size=lambda gradient: 1e3 * float(gradient.norm()))
    assert loose < strict
    np.testing.assert_allclose(solved, [1, -2, 3], atol=1e-4)


def test_adam_compares_the_means_of_windows():
    def steps(window):
        generator = torch.Generator().manual_seed(0)
        param = torch.zeros(1, requires_grad=True)
        noise = torch.randn(2000, generator=generator)
        losses = iter(noise)
        result = minimize(
            lambda: (param - 5).square().sum() + next(losses),
            [param],
            Adam(1e-2, tol=1e-3, window=window),
            max_iter=1000,
        )
        return result.n_iter

    assert steps(10) % 10 == 0 and steps(10) < 300  # noise alone looks like the end
    assert steps(500) == 1000


def test_adam_does_not_load_the_compiler_of_torch():
    code = """
import sys
import numpy as np
from sklearn_icon import ICONClassifier
ICONClassifier(encoder="mlp", max_iter=2, tol=0).fit(np.eye(6), [0, 1] * 3)
print([name for name in ("torch._dynamo", "sympy", "numba", "pynndescent", "matplotlib") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout.strip() == "[]"
