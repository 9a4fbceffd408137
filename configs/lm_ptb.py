"""Does the output layer of a word-level language model decide its perplexity? Penn Treebank.

Claim: a linear softmax bounds the rank of the log-probabilities by its width, and layers without
this bound predict words better (Yang et al. 2018, arXiv:1711.03953; Ganea et al. 2019,
arXiv:1902.08077). Against it: a piecewise linear map with random slopes that are never trained does
as well as a learned one, and the rank grows by a quarter, from 402 to 496 (Parthiban et al. 2021,
AAAI).

  python experiments/main.py --config=configs/lm_ptb.py --config.data.dir=DIR

DIR holds ptb.train.txt, ptb.valid.txt and ptb.test.txt; the text is licensed and is neither part of
this package nor downloaded. One output layer alone: --config.head.name=linear.

The network is an LSTM of 400 units below one of as many units as the output layer has features: 200
with a linear softmax, 5.45 million parameters. The other layers have the number of features at
which all networks have as many parameters, to a hundredth. Three seeds each. Every 500 steps the
perplexity on "valid" is measured; the parameters with the lowest are kept, and evaluated on "valid"
and "test". Four measurements in a row without a lower one end a run.

Adam moves every parameter by steps of the size of the learning rate, so the slopes of the piecewise
linear map need no rate of their own, as they do with SGD; `optimizer.head_learning_rate` is a
factor on that of the whole output layer. There is no weight decay: it would move frozen slopes.

The matrix whose rank is counted has the first 4,096 contexts of "test" as rows, so 4,096 is the
largest rank there can be.
"""

from rankbias.config import variants
from rankbias.config.language import compare, language_model, output_layers, shrink

LAYERS = output_layers()
# How many features make 5.45 million parameters.
SIZES = {
  "linear": 200,
  "sigsoftmax": 200,
  "generalized_sigsoftmax": 200,
  "tanh_cap": 200,
  "plif": 200,
  "noise": 192,
  "frozen_noise": 192,
  "mixture_of_softmaxes": 192,
  "mixture_of_contexts": 192,
  "mixtape": 171,
  "partitioned": 178,
  "multi_facet": 171,
  "drill": 189,
}


def get_config(arg=""):
  """Variant `smoke` ends in seconds, but needs the files too."""
  names = variants(arg, ("smoke",))
  c = language_model("lm_ptb", arg, every=500, patience=4)
  c.data.update(name="ptb", window=35)
  c.model = {
    "name": "lstm",
    "vocabulary": 10_000,
    "embedding": 200,
    "width": 400,
    "depth": 2,
    "features": 200,
    "dropout": 0.2,
    "hidden_dropout": 0.1,
    "input_dropout": 0.1,
    "weight_dropout": 0.0,
    "word_dropout": 0.0,
  }
  c.head = LAYERS["linear"]
  c.steps, c.batch_size = 4000, 32  # 830 steps read the text once
  c.optimizer.update(learning_rate=3e-3, clip_norm=1.0, warmup_steps=100)
  if "smoke" in names:
    shrink(c)
    c.data.limit = 40
    c.model.update(embedding=8, width=8, features=8)
  return c


def sweep(config):
  """All output layers with three seeds; three of them with one for the smoke test."""
  return compare(config, LAYERS, "model.features", SIZES)
