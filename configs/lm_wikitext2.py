"""Does the output layer of a word-level language model decide its perplexity? WikiText-2.

The question and the claims of configs/lm_ptb.py, with three times the vocabulary and the network of
AWD-LSTM (Merity et al. 2017, arXiv:1708.02182) without tied embeddings: two LSTMs of 1,150 units
below one of 400, 46.9 million parameters. For an accelerator.

  python experiments/main.py --config=configs/lm_wikitext2.py --config.data.dir=DIR

DIR holds wiki.train.tokens, wiki.valid.tokens and wiki.test.tokens, from the public archive
wikitext-2-v1.zip. One output layer alone: --config.head.name=linear.

All networks have as many parameters, to a hundredth, by their number of features. Three seeds each;
the parameters with the lowest perplexity on "valid" are evaluated, and ten measurements in a row
without a lower one end a run. The dropouts are the published ones; the optimiser is Adam with a
cosine schedule, not averaged SGD, and activations are not regularised. Not measured.
"""

from rankbias.config import variants
from rankbias.config.language import compare, language_model, output_layers, shrink

LAYERS = output_layers(slope=3.0)
# How many features make 46.9 million parameters.
SIZES = {
  "linear": 400,
  "sigsoftmax": 400,
  "generalized_sigsoftmax": 400,
  "tanh_cap": 400,
  "plif": 400,
  "noise": 398,
  "frozen_noise": 398,
  "mixture_of_softmaxes": 389,
  "mixture_of_contexts": 389,
  "mixtape": 350,
  "partitioned": 370,
  "multi_facet": 359,
  "drill": 385,
}


def get_config(arg=""):
  """Variant `smoke` ends in seconds, but needs the files too."""
  names = variants(arg, ("smoke",))
  c = language_model("lm_wikitext2", arg, every=400, patience=10)
  c.data.update(name="wikitext2", window=70)
  c.model = {
    "name": "lstm",
    "vocabulary": 33_278,
    "embedding": 400,
    "width": 1150,
    "depth": 3,
    "features": 400,
    "dropout": 0.4,
    "hidden_dropout": 0.2,
    "input_dropout": 0.65,
    "weight_dropout": 0.5,
    "word_dropout": 0.1,
  }
  c.head = LAYERS["linear"]
  c.steps, c.batch_size = 22_000, 80  # 373 steps read the text once
  c.optimizer.update(learning_rate=1e-3, clip_norm=0.25, warmup_steps=400)
  if "smoke" in names:
    shrink(c)
    c.data.limit = 40
    c.model.update(embedding=8, width=8, features=8)
  return c


def sweep(config):
  """All output layers with three seeds; three of them with one for the smoke test."""
  return compare(config, LAYERS, "model.features", SIZES)
