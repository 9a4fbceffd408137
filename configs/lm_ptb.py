"""Does the output layer of a word-level language model decide its perplexity? Penn Treebank.

Claim: a linear softmax bounds the rank of the log-probabilities by its width, and layers without
this bound predict words better (Yang et al. 2018, arXiv:1711.03953; Ganea et al. 2019,
arXiv:1902.08077). Against it: a piecewise linear map with random slopes that are never trained does
as well as a learned one, and the rank grows by a quarter, from 402 to 496 (Parthiban et al. 2021,
AAAI).

  python experiments/main.py --config=configs/lm_ptb.py --config.data.dir=DIR

DIR holds ptb.train.txt, ptb.valid.txt and ptb.test.txt; the text is licensed and is neither part of
this package nor downloaded. One output layer alone: --config.head.name=linear.

The network is an LSTM of 400 units below one of as many units as the output layer has features: 100
with a linear softmax, 4.17 million parameters. The other layers have the number of features at
which all networks have as many parameters, to a hundredth. Three seeds each. Training is that of
Zaremba et al. 2014 (arXiv:1409.2329), SGD at rate 20 with gradients clipped at 0.25 and windows of
20 words, with a cosine instead of steps and a little dropout. Twice an epoch the perplexity on
"valid" is measured; the parameters with the lowest are kept, and evaluated on "valid" and "test".
Three measurements in a row without a lower one end a run.

At rate 20 a mixture of softmaxes learns little but the frequencies of words (test perplexity 275 to
673), since the tanh of its contexts saturates at once, and partitioned softmax is not much better
(134 to 640). Mixtures, Mixtape, partitioned and multi-facet softmax therefore have a quarter of the
rate for the output layer, the best of 1, 1/2, 1/4 and 1/10 for the training loss of three softmaxes
after 600 steps, and the linear layer is there with a quarter too.

The slopes of the piecewise linear map have no learning rate of their own: a change of a slope moves
what it maps by the width of a bin, so with 1e5 knots SGD moves the map slowly at rate 20 as well.
There is no weight decay: it would move frozen slopes.

Measured (docs/results.md), three seeds: the linear layer ends at 117.4 +- 0.4 on "valid" and
113.8 +- 0.2 on "test" with log-probabilities of rank 102, sigsoftmax at 116.4 +- 0.4 and
112.2 +- 0.3 with rank 3,100, DRILL at 110.4 +- 0.7 and 107.0 +- 0.5 with rank 99, random slopes 5 %
higher, learned or frozen. With a quarter of the rate the linear layer ends at 137.5 +- 0.7 on
"test", three contexts at 128.3 +- 0.3, Mixtape at 127.9 +- 1.1, three softmaxes at 123.4 +- 1.1,
partitioned softmax at 121.2 +- 0.2 and multi-facet softmax at 118.3 +- 0.7. 11 to 31 minutes a run
on one CPU core.

The matrix whose rank is counted has the first 4,096 contexts of "test" as rows, so 4,096 is the
largest rank there can be.
"""

from rankbias.config import variants
from rankbias.config.language import compare, language_model, output_layers, shrink

LAYERS = output_layers()
# How many features make 4.17 million parameters.
SIZES = {
  "linear": 100,
  "sigsoftmax": 100,
  "generalized_sigsoftmax": 100,
  "tanh_cap": 100,
  "plif": 100,
  "noise": 92,
  "frozen_noise": 92,
  "mixture_of_softmaxes": 98,
  "mixture_of_contexts": 98,
  "mixtape": 88,
  "partitioned": 94,
  "multi_facet": 91,
  "drill": 97,
}
# Those that do not learn at the rate of the others.
SLOW = (
  *("mixture_of_softmaxes", "mixture_of_contexts", "mixtape"),
  *("partitioned", "multi_facet"),
)


def get_config(arg=""):
  """Variant `smoke` ends in seconds, but needs the files too."""
  names = variants(arg, ("smoke",))
  c = language_model("lm_ptb", arg, every=1160, patience=3)
  c.data.update(name="ptb", window=20)
  c.model = {
    "name": "lstm",
    "vocabulary": 10_000,
    "embedding": 200,
    "width": 400,
    "depth": 2,
    "features": 100,
    "dropout": 0.1,
    "hidden_dropout": 0.1,
    "input_dropout": 0.0,
    "weight_dropout": 0.0,
    "word_dropout": 0.0,
  }
  c.head = LAYERS["linear"]
  c.steps, c.batch_size = 11_600, 20  # 2,324 steps read the text once
  c.optimizer.update(name="sgd", momentum=0.0, learning_rate=20.0, clip_norm=0.25, warmup_steps=0)
  if "smoke" in names:
    shrink(c)
    c.data.limit = 40
    c.model.update(embedding=8, width=8, features=8)
  return c


def sweep(config):
  """All output layers with three seeds; some of them with one for the smoke test."""
  own = {name: layer for name, layer in LAYERS.items() if name not in SLOW}
  slow = {name: LAYERS[name] for name in ("linear", *SLOW)}
  members = compare(config, slow, "model.features", SIZES)
  members = [member | {"optimizer.head_learning_rate": 0.25} for member in members]
  return compare(config, own, "model.features", SIZES) + members
