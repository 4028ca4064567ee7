"""Unlearn mislabelled digits from a network and a data set of one's own; runs in half a minute on a CPU."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

import expunge

# A small network, trained on digits of which 60 carry a wrong label. Half of those are known.
torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 8 - 1
labels = torch.tensor(digits.target)
noisy = labels.clone()
wrong = torch.randperm(len(labels))[:60]
noisy[wrong] = (noisy[wrong] + 1) % 10
known = wrong[:30]

model = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
    nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
    nn.Flatten(), nn.Linear(32 * 64, 64), nn.ReLU(), nn.Linear(64, 10),
)  # fmt: skip
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
for _ in range(20):
    for rows in torch.randperm(len(noisy)).split(128):
        loss = nn.functional.cross_entropy(model(images[rows]), noisy[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def healed(network: nn.Module) -> str:
    """Share of the wrongly labelled images that the network sees as what they are."""
    network.eval()
    with torch.no_grad():
        right = network(images[wrong]).argmax(1) == labels[wrong]
    return f"{right[:30].float().mean():.0%} of the known, {right[30:].float().mean():.0%} of the unknown"


print("before:", healed(model))
result = expunge.unlearn(model, TensorDataset(images, noisy), forget=known)
print("after: ", healed(result.model))
print(f"cost:   {result.cost.seconds:.1f} s, {result.cost.sample_gradients} sample gradients")
