"""How fast and how large is `nn.ICONLoss`, next to the same losses written by hand?

Forward and backward of batches of 256, 1,024 and 4,096 rows of 128, in one process, one after the other; CPU seconds
and the median of their ratios, and what torch allocates at the peak. `--compile` compiles both, `--dtype` sets the
precision of the rows.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from _fresh import machine
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from sklearn_icon import learned
from sklearn_icon.nn import ICONLoss

TAU, DIM, REPEATS = 0.1, 128, {256: 40, 1024: 12, 4096: 4}
COSINE = learned.Gaussian(metric="cosine", tau=TAU)


def but_self(pairs, value=-torch.inf):
    return pairs.masked_fill(torch.eye(len(pairs), dtype=torch.bool, device=pairs.device), value)


def cosines(z, keys):
    return functional.normalize(z) @ functional.normalize(keys).T / TAU


def cauchy(z, keys):
    sq = z.square().sum(1)[:, None] + keys.square().sum(1) - 2 * z @ keys.T
    return -(1 + sq.clamp_min(0)).log()


def nt_xent(log_kernel):
    def loss(z, other):
        z = torch.cat([z, other])
        n = len(z)
        return functional.cross_entropy(but_self(log_kernel(z, z)), torch.arange(n, device=z.device).roll(n // 2))

    return loss


def supcon(z, other):
    z = torch.cat([z, other])
    y = torch.arange(len(z), device=z.device) % 10
    logits = but_self(cosines(z, z))
    positive = but_self(y[:, None] == y, False)
    log_q = (logits - logits.logsumexp(1, keepdim=True)).masked_fill(~positive, 0)
    return -(log_q.sum(1) / positive.sum(1)).mean()


def clip(log_kernel):
    def loss(z, other):
        logits, own = log_kernel(z, other), torch.arange(len(z), device=z.device)
        return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2

    return loss


def smooth(z, other):
    return functional.cross_entropy(cosines(z, other), torch.arange(len(z), device=z.device), label_smoothing=0.2)


def of_rows(loss, y):
    def ours(z, other):
        z = torch.cat([z, other])
        return loss(z, y(len(z)).to(z.device))

    return ours


def views(n):
    return torch.arange(n // 2).repeat(2)


CLIP, SMOOTHED = ICONLoss("cross_modal", COSINE, symmetric=True), ICONLoss("cross_modal", COSINE, debias=0.2)
CAUCHY = ICONLoss("cross_modal", "student_t", symmetric=True)
# ours, by hand
LOSSES = {
    "positive pairs": (of_rows(ICONLoss("positive_pairs", COSINE), views), nt_xent(cosines)),
    "positive pairs, Student-t": (of_rows(ICONLoss("positive_pairs", "student_t"), views), nt_xent(cauchy)),
    "classes": (of_rows(ICONLoss("same_class", COSINE), lambda n: torch.arange(n) % 10), supcon),
    "two modalities": (lambda z, other: CLIP(z, keys=other), clip(cosines)),
    "two modalities, Student-t": (lambda z, other: CAUCHY(z, keys=other), clip(cauchy)),
    "smoothed": (lambda z, other: SMOOTHED(z, keys=other), smooth),
}


def seconds(loss, inputs):
    inputs = [part.clone().requires_grad_() for part in inputs]
    start = time.process_time()
    loss(*inputs).backward()
    return time.process_time() - start


def peak_bytes(loss, inputs):
    """Most bytes allocated at once beyond the inputs."""
    inputs = [part.clone().requires_grad_() for part in inputs]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        loss(*inputs).backward()
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    held, most = 0, 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="256,1024,4096")
    parser.add_argument("--losses", default=",".join(LOSSES).replace(", ", "; "), help="separated by commas")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.jobs)
    rows = []
    for n in map(int, args.sizes.split(",")):
        for name in (chosen.replace("; ", ", ") for chosen in args.losses.split(",")):
            one_each = n if name.startswith(("two", "smoothed")) else n // 2
            inputs = [torch.randn(one_each, DIM).to(getattr(torch, args.dtype)) for _ in range(2)]
            torch.compiler.reset()  # of a loop whose batches have one size
            losses = [torch.compile(loss) if args.compile else loss for loss in LOSSES[name]]
            for loss in losses:  # warm
                seconds(loss, inputs)
            pairs = [[seconds(loss, inputs) for loss in losses] for _ in range(REPEATS.get(n, 10))]
            ours, hand = (1e3 * statistics.median(times) for times in zip(*pairs, strict=True))
            ratio = statistics.median(a / b for a, b in pairs)
            peaks = [peak_bytes(loss, inputs) / 2**20 for loss in losses]
            rows.append({"n": n, "loss": name, "ours_ms": ours, "hand_ms": hand, "ratio": ratio, "peak_mib": peaks})
            times = f"{ours:8.2f} ms, by hand {hand:8.2f} ms, ratio {ratio:5.2f}"
            print(f"{n:5d} {name:27s} {times}; peak {peaks[0]:6.1f} and {peaks[1]:6.1f} MiB", flush=True)
    if args.json:
        about = {"machine": machine(), "dtype": args.dtype, "compile": args.compile, "jobs": args.jobs}
        args.json.write_text(json.dumps(about | {"runs": rows}, indent=1))


if __name__ == "__main__":
    main()
