"""
The loss in a training loop of your own
=======================================

``nn.ICONLoss`` is the loss as a ``torch.nn.Module``: for networks, data loaders and optimisers that no estimator knows.
Here are supervised contrast and its temperature, learned together.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits

from sklearn_icon import learned
from sklearn_icon.nn import ICONLoss

digits = load_digits()
X, y = torch.as_tensor(digits.data, dtype=torch.float32) / 16, torch.as_tensor(digits.target)
torch.set_num_threads(1)  # of so small batches threads would only wait for each other
generator = torch.Generator().manual_seed(0)
torch.manual_seed(0)
network = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 16))
loss = ICONLoss("same_class", learned.Gaussian(metric="cosine", tau="learn"))
parameters = [{"params": network.parameters()}, {"params": loss.parameters(), "lr": 0.02}]
optimizer = torch.optim.Adam(parameters, lr=3e-3)

losses, temperatures = [], []
for _ in range(200):
    batch = torch.randint(0, 1200, (256,), generator=generator)
    value = loss(network(X[batch]), y[batch])
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    losses.append(value.item())
    temperatures.append(loss.tau.item())

# %%
# The loss and the temperature by step.

fig, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
axes[0].plot(losses)
axes[0].set(xlabel="step", ylabel="loss")
axes[1].plot(temperatures)
axes[1].set(xlabel="step", ylabel="temperature")
plt.show()
