"""One batch on two processes equals one process on the joint batch."""

import os

import pytest
import torch
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from sklearn_icon import learned, supervisory
from sklearn_icon._core.ranks import JointBatch
from sklearn_icon.nn import ICONLoss

SIZES = (5, 7)
N, DIM, CLASSES = sum(SIZES), 4, 3
COSINE = learned.Gaussian(metric="cosine", tau="learn")

# p, q, debias
CASES = {
    "pairs": ("positive_pairs", COSINE, 0.0),
    "pairs-debiased": ("positive_pairs", learned.StudentT(df="learn"), 0.3),
    "classes": ("same_class", COSINE, 0.0),
    "classes-wide": ("same_class", learned.WideGaussian(), 0.0),
    "several-labels": ("same_class", COSINE, 0.0),
    "tokens": ("counts", learned.Gaussian(metric="dot"), 0.1),
    "cross-modal": ("cross_modal", COSINE, 0.0),
    "identity": ("identity", learned.StudentT(), 0.0),
    "prototypes": ("data_label", learned.Gaussian(metric="dot"), 0.1),
    "neighbours": (supervisory.UniformKNN(n_neighbors=2, source="y"), "gaussian", 0.0),
    "clusters": (
        supervisory.Gaussian(perplexity=3, source="y"),
        learned.UniformMixture(learned.SharedCluster(), 0.2),
        0.2,
    ),
    "graph": ("graph", learned.SharedCluster(weights="degree"), 0.0),
}


def batch(case):
    """(x, y, x of the keys) of the joint batch."""
    generator = torch.Generator().manual_seed(0)
    x, other, features = (torch.randn(N, DIM, generator=generator, dtype=torch.float64) for _ in range(3))
    labels = torch.tensor([0, 1, 1, 2, 0, 0, 1, 2, 2, 1, 0, 2])
    groups = torch.tensor([0, 1, 2, 3, 9, 0, 1, 2, 3, 4, 5, 4])  # 9 and 5 are alone, one on each process
    weights = torch.rand(N, N, generator=generator, dtype=torch.float64)
    y = {"pairs": groups, "classes": labels, "prototypes": labels, "neighbours": features, "clusters": features}
    several = torch.stack([labels == 0, labels < 2, labels > 0], dim=1)
    y |= {"graph": weights, "tokens": (5 * weights[:, :CLASSES]).round(), "several": several}
    return x, y.get(case.split("-")[0]), other if case == "cross-modal" else None


class Model(torch.nn.Module):
    """An encoder and the loss behind it, with prototypes where p has some."""

    def __init__(self, case, across):
        super().__init__()
        p, q, debias = CASES[case]
        generator = torch.Generator().manual_seed(1)
        self.loss = ICONLoss(p, q, debias=debias, gather_distributed=across)
        self.net = torch.nn.Linear(DIM, CLASSES)
        self.prototypes = None
        if case in ("prototypes", "tokens"):
            self.prototypes = torch.nn.Parameter(torch.empty(CLASSES, CLASSES))
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if not name.startswith("loss"):
                    parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, x, y, x_keys):
        return self.loss(self.net(x), y, self.prototypes if x_keys is None else self.net(x_keys))


def value_and_gradients(model, x, y, x_keys):
    value = model(x, y, x_keys)
    value.backward()
    return value.detach(), [parameter.grad for parameter in model.parameters()]


def run_rank(rank, folder):
    """What one of the processes does: all cases, its results in a file."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=len(SIZES))
    rows = slice(sum(SIZES[:rank]), sum(SIZES[: rank + 1]))
    results = {}
    for case in CASES:
        model = DistributedDataParallel(Model(case, across=True).double())
        own = [None if part is None else part[rows] for part in batch(case)]
        results[case] = value_and_gradients(model, *own)
    compiled = torch.compile(Model(case, across=True).double(), backend="aot_eager")
    results["compiled"] = compiled(*own).detach()
    empty = ICONLoss("positive_pairs", "gaussian", gather_distributed=True)
    alone = torch.arange(2) + 2 * rank
    try:
        empty(torch.randn(2, 2), alone)
    except ValueError as error:
        results["error"] = str(error)
    results["alone"] = ICONLoss("cross_modal", "gaussian")(x := torch.ones(2, 2) * rank, keys=x)
    torch.save(results, f"{folder}/{rank}.pt")
    os._exit(0)  # gloo's own way out can wait for ever on a busy machine: its threads and Python's lock for each other


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(run_rank, args=(folder,), nprocs=len(SIZES))
    return [torch.load(folder / f"{rank}.pt") for rank in range(len(SIZES))]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:2 of 12 rows have no positive")
@pytest.mark.parametrize("case", list(CASES))
def test_processes_together_equal_one(case, ranks):
    value, gradients = value_and_gradients(Model(case, across=False).double(), *batch(case))
    assert max(gradient.abs().max() for gradient in gradients) > 1e-3
    for result in ranks:
        torch.testing.assert_close(result[case][0], value, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(result[case][1], gradients, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_no_row_of_any_process_has_a_positive(ranks):
    assert all("no row of the batch has a positive" in result["error"] for result in ranks)


@pytest.mark.slow
def test_compiled_processes(ranks):
    last = list(CASES)[-1]
    for result in ranks:
        torch.testing.assert_close(result["compiled"], result[last][0], rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_processes_stay_apart_unless_told(ranks):
    assert all(result["alone"] == pytest.approx(torch.tensor(2.0).log().item()) for result in ranks)


def test_without_a_process_group_it_is_one_batch():
    z = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    y = torch.arange(3).repeat(2)
    assert ICONLoss("same_class", "gaussian", gather_distributed=True)(z, y) == ICONLoss("same_class", "gaussian")(z, y)
    joint = JointBatch(6, z.device, True)
    assert joint.gather(z) is z and joint.rows == slice(0, 6)
