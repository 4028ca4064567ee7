"""Unlearn wrong labels from a small transformer; runs in a minute on a CPU (pip install 'expunge[text]')."""

import random

import torch
from torch import nn
from torch.utils.data import TensorDataset
from transformers import BertConfig, BertForSequenceClassification

import expunge
from expunge.training.recipe import Optimiser

# 1,000 reviews of ten words, of which two tell the opinion; 60 carry the wrong label, and half of those are known.
GOOD, BAD = ["fine", "lovely", "great", "warm", "clever"], ["dull", "poor", "awful", "cold", "stupid"]
NEUTRAL = [f"word{i}" for i in range(300)]
number = {word: i for i, word in enumerate(["[pad]", *GOOD, *BAD, *NEUTRAL])}
draw = random.Random(0)
torch.manual_seed(0)
labels = torch.tensor([draw.randrange(2) for _ in range(1000)])
reviews = [draw.choices(GOOD if good else BAD, k=2) + draw.choices(NEUTRAL, k=8) for good in labels.tolist()]
tokens = torch.tensor([[number[word] for word in draw.sample(review, 10)] for review in reviews])
noisy = labels.clone()
wrong = torch.randperm(len(labels))[:60]
noisy[wrong] = 1 - noisy[wrong]
known = wrong[:30]


class Classifier(nn.Module):
    """Token ids (B, T) in, logits (B, 2) out, as expunge asks of a network."""

    def __init__(self) -> None:
        super().__init__()
        self.bert = BertForSequenceClassification(
            BertConfig(
                vocab_size=len(number), hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                intermediate_size=128, max_position_embeddings=16, num_labels=2,
            )
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        return self.bert(input_ids=x, attention_mask=x.ne(0).long()).logits


model = Classifier()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for epoch in range(30):
    if epoch == 5:  # trainers keep such a checkpoint; what was learned since then can be taken back
        earlier = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for batch in torch.randperm(len(noisy)).split(64):
        loss = nn.functional.cross_entropy(model(tokens[batch]), noisy[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def healed(network: nn.Module) -> str:
    """Share of the wrongly labelled reviews that the network gives their true label."""
    network.eval()
    with torch.no_grad():
        right = network(tokens[wrong]).argmax(1) == labels[wrong]
    return f"{right[:30].float().mean():.0%} of the known, {right[30:].float().mean():.0%} of the unknown"


print("before:", healed(model))
recipe = expunge.Recipe(epochs=30, batch_size=64, optimiser=Optimiser(name="adamw", lr=1e-3))
result = expunge.unlearn(model, TensorDataset(tokens, noisy), forget=known, recipe=recipe, earlier=earlier)
print("after: ", healed(result.model))
print(f"cost:   {result.cost.seconds:.1f} s, {result.cost.sample_gradients} sample gradients")
