"""How does the temperature of the softmax set the rank of every layer, and by what mechanism?

Claims (Masarczyk et al. 2025, arXiv:2506.01562, as reviewers report them): at high temperature the
rank of the solution falls far below the number of classes; weights and what comes into them align,
so that the largest singular value grows from layer to layer; gradients then have the low rank of
what comes in; the "effective depth" is smaller. How it is measured is not known to us: here it is
how many layers are needed before a linear probe is as good as on the last.

  python experiments/main.py --config=configs/rank_by_temperature.py
  python experiments/main.py --config=configs/rank_by_temperature.py:cifar10
  python experiments/main.py --config=configs/rank_by_temperature.py:lm

trains the digits' MLP (8 layers of 256) at T = 1, 10, 100 and 1000, five seeds, and measures
through training the ranks of activations and of gradients, the alignment and gain of every kernel
with its inputs, and at the end linear probes, neural collapse and, of members that train together
(the digits', and those of `vit`), the similarity of their layers. Other data and networks are
variants, `cifar10`, `cifar100` or `fashion_mnist` and `vit`, `resnet18` or `vgg`, as in
`:cifar10,resnet18` (the last two are for an accelerator); three seeds there. `lm` is a language
model of characters, an LSTM with 32 features for 65 classes on tiny Shakespeare, where classes
outnumber dimensions. `smoke` ends in seconds.

Measured on the digits (docs/results.md), mean and 95 % confidence interval of five seeds:

  T     covariance rank, last hidden layer   of the logits   alignment     test accuracy, %
  1     56.2 +- 7.4                          9.2 +- 0.6      0.11 +- 0.00  98.3 +- 0.2
  10    27.0 +- 1.8                          9.0 +- 0.0      0.24 +- 0.04  98.1 +- 0.3
  100   14.2 +- 3.0                          7.4 +- 0.7      0.55 +- 0.02  98.0 +- 0.8
  1000  10.4 +- 0.7                          5.4 +- 0.7      0.62 +- 0.07  97.6 +- 1.0

in 16 minutes of one CPU core beside other work. With `cifar10`, three seeds, 24 minutes:

  1     218 +- 4                             10.0 +- 0.0     0.10 +- 0.03  54.4 +- 1.0
  10    120 +- 8                             9.0 +- 0.0      0.17 +- 0.02  55.9 +- 0.6
  100   40 +- 4                              9.0 +- 0.0      0.29 +- 0.02  56.6 +- 1.1
  1000  21.7 +- 1.4                          8.0 +- 0.0      0.42 +- 0.03  55.5 +- 1.0

`lm`, three seeds, 16 minutes: at T = 1 all 32 dimensions are used (perplexity 6.3 +- 0.4); from
T = 10 on 4,000 steps teach it no more than how frequent characters are. The other variants are not
measured.
"""

from rankbias.config import product, variants
from rankbias.config.language import language_model, shrink
from rankbias.config.studies import PROBE, seeds, study, temperatures


def get_config(arg=""):
  """Variants: cifar10, cifar100, fashion_mnist; vit, resnet18, vgg; lm; smoke."""
  if "lm" in arg.split(","):
    return language(arg)
  c, _ = study("rank_by_temperature", arg)
  # No more directions than a kernel has: the pixels of the small ViT's patches are 4.
  c.measure.update(alignment=4 if c.model.name == "vit" else 5, gradients=True)
  c.evaluate.probe = PROBE
  c.evaluate.collapse = {}
  if c.model.name in ("mlp", "vit") and not c.members_per_program:
    c.evaluate.cka = {}  # of members that train together
  return c


def language(arg):
  """A language model of characters, 32 features for 65 classes."""
  names = variants(arg, ("lm", "smoke"))
  c = language_model("rank_by_temperature", arg, every=500, patience=0)
  c.data.update(name="tiny_shakespeare", window=64)
  c.model = {"name": "lstm", "vocabulary": 65, "embedding": 32, "width": 128, "depth": 2}
  c.model.update(features=32, dropout=0.0)
  c.steps, c.batch_size = 4000, 32
  c.optimizer.update(learning_rate=3e-3, clip_norm=1.0, warmup_steps=100)
  c.evaluate.spectra = {"images": 2048, "split": "test"}
  if "smoke" in names:
    shrink(c)
    c.data.limit = 40
    c.model.update(embedding=8, width=8, features=8)
  c.select = {}  # what training ends in is measured
  return c


def sweep(config):
  """Every temperature."""
  return product({"temperature": temperatures(config), "seed": seeds(config)})
