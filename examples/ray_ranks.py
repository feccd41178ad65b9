"""Classes of a parquet file by the workers of Ray Train, which start a process group of torch.distributed.

python examples/ray_ranks.py X.parquet y.parquet classes.icon
"""

import sys

from ray.train import ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from sklearn_icon import ICONClassifier, distributed


def fit(config):
    """Fit the rows of this worker; rank 0 saves the classifier of all."""
    X, y = distributed.shard(config["X"]), distributed.shard(config["y"])  # other rows are not read
    classifier = ICONClassifier(encoder="mlp", random_state=0, checkpoint=config["model"] + ".checkpoint").fit(X, y)
    whole = distributed.gather(classifier)
    if whole is not None:
        whole.save(config["model"])


if __name__ == "__main__":
    files = dict(zip(("X", "y", "model"), sys.argv[1:], strict=True))
    scaling = ScalingConfig(num_workers=4, resources_per_worker={"CPU": 2})
    TorchTrainer(fit, train_loop_config=files, torch_config=TorchConfig("gloo"), scaling_config=scaling).fit()
