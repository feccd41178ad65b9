"""Classes of dask arrays by the workers of dask-distributed, each of which is a rank that computes its partitions.

python examples/dask_ranks.py
"""

import tempfile

import dask.array as da
import numpy as np
from dask.distributed import Client, LocalCluster


def fit(rank, n_ranks, store, X, y):
    """Fit the rows of one worker; what rank 0 returns is the classifier of all."""
    import torch

    from sklearn_icon import ICONClassifier, distributed

    torch.set_num_threads(1)
    store = torch.distributed.FileStore(store, n_ranks)  # in a folder that all workers reach; else a TCPStore
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=n_ranks)
    try:
        return distributed.gather(ICONClassifier().fit(distributed.shard(X), distributed.shard(y)))
    finally:
        torch.distributed.destroy_process_group()


def main(n_ranks=2):
    """The classifier, and the rows that it was fitted to."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4_000, 8))
    X, y = da.from_array(rows, chunks=(500, 8)), da.from_array((rows[:, 0] > rows[:, 1]).astype(int), chunks=700)
    with tempfile.TemporaryDirectory() as folder, LocalCluster(n_ranks, threads_per_worker=1) as cluster:
        with Client(cluster) as client:
            client.wait_for_workers(n_ranks)
            workers = list(client.scheduler_info()["workers"])
            told = n_ranks, f"{folder}/store", X, y
            ranks = [client.submit(fit, rank, *told, workers=[at], pure=False) for rank, at in enumerate(workers)]
            return client.gather(ranks)[0], X, y


if __name__ == "__main__":
    classifier, X, y = main()
    print("accuracy", classifier.score(X.compute(), y.compute()))
