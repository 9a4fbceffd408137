"""Does the output layer decide the perplexity of a small language model? Tiny Shakespeare.

The question and the claims of configs/lm_ptb.py, small enough for any machine: characters, of which
there are 65, and 16 features, so that the log-probabilities of a linear softmax have rank 18 at
most.

  python experiments/main.py --config=configs/lm_shakespeare.py

The one file, input.txt, is looked for in --config.data.dir=DIR and downloaded if it is not there
(1.1 MB). One output layer alone: --config.head.name=linear.

The network is an LSTM of 256 units below one of 16, 0.35 million parameters. All networks have as
many, to a hundredth, by the units of the lower layer. Three seeds each; the parameters with the
lowest perplexity on "valid" are evaluated, and four measurements in a row without a lower one end a
run. The matrix whose rank is counted has the first 4,096 contexts of "test" as rows. Not measured.
"""

from rankbias.config import variants
from rankbias.config.language import compare, language_model, output_layers, shrink

# Random slopes have a tenth of the published knots.
LAYERS = output_layers(knots=10_000, frequent=1.0, chunked=False)
# How many units make 0.35 million parameters.
SIZES = {
  "linear": 256,
  "sigsoftmax": 256,
  "generalized_sigsoftmax": 256,
  "tanh_cap": 256,
  "plif": 256,
  "noise": 252,
  "frozen_noise": 252,
  "mixture_of_softmaxes": 256,
  "mixture_of_contexts": 256,
  "mixtape": 255,
  "partitioned": 255,
  "multi_facet": 255,
  "drill": 256,
}


def get_config(arg=""):
  """Variant `smoke` ends in seconds."""
  names = variants(arg, ("smoke",))
  c = language_model("lm_shakespeare", arg, every=250, patience=4)
  c.data.update(name="tiny_shakespeare", window=64)
  c.model = {
    "name": "lstm",
    "vocabulary": 65,
    "embedding": 64,
    "width": 256,
    "depth": 2,
    "features": 16,
    "dropout": 0.0,
    "hidden_dropout": 0.1,
    "input_dropout": 0.0,
    "weight_dropout": 0.0,
    "word_dropout": 0.0,
  }
  c.head = LAYERS["linear"]
  c.steps, c.batch_size = 2500, 32  # 491 steps read the text once
  c.optimizer.update(learning_rate=3e-3, clip_norm=1.0, warmup_steps=100)
  if "smoke" in names:
    shrink(c)
    c.model.update(embedding=4, width=8, features=3)
  return c


def sweep(config):
  """All output layers with three seeds; three of them with one for the smoke test."""
  return compare(config, LAYERS, "model.width", SIZES)
