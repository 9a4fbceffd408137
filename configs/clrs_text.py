"""Does a Transformer that has learned algorithms on short inputs still run them on long ones?

Claim: attention disperses as its rows grow, and what an adaptive temperature does about it in one
head it can do for a language model on the text of algorithms, if it is trained with it (Velickovic
et al. 2024, arXiv:2410.01104; CLRS-Text: Markeeva et al. 2024, arXiv:2406.04229).

  python experiments/main.py --config=configs/clrs_text.py
  python experiments/main.py --config=configs/clrs_text.py:cpu

trains decoder-only Transformers on questions and answers of length 4 to 12, character by character,
with softmax, with adaptive temperature and with scalable softmax (each head learns its sharpness as
a function of log n), and counts which answers of length 4 to 12, 16, 24, 32 and 48 are right in
every character. Of bfs and lcs_length no 48 is asked: their texts grow as the square of the length,
to 4,900 and 6,700 tokens there (2,200 and 3,100 at 32); the longest of the others has 610. Each
network is measured as trained, and with softmax and adaptive temperature in its place at inference;
beside it stands how sharp its heads are at each length.

The default is for an accelerator: 6 algorithms, 6 layers of width 256, 4.7 million parameters. The
variant `cpu` has 4 algorithms with short answers, 4 layers of width 64, 0.2 million parameters and
a curriculum that begins with the shortest texts. Two of the four are one task by two names, half of
the texts, since matching is what a network learns last. A comparison of lengths means something
only where the answers of length 4 to 12 are right, and the cheapest way there is to train one
network (--sweep=False) and to go on from it in each way that is compared:

  --sweep=False --config.warm_start=RUN_FOLDER --config.steps=4000 --config.data.curriculum=0
  --config.optimizer.learning_rate=1e-3 --config.model.normalizer=adaptive_temperature_softmax

(or --config.model.length_scale=True, or neither). Measured so (docs/results.md, one seed): 84 to
98 % at the trained lengths, about 50 % of minimum and 10 to 15 % of the others at 16, nearly
nothing beyond, and no difference between the three ways.
"""

from rankbias.config import base, chain, product, variants

REMEDIES = {
  "softmax": {"name": "softmax"},
  "adaptive": {"name": "adaptive_temperature_softmax"},
}
LONG = (16, 24, 32, 48)
TEST_LENGTHS = {
  "insertion_sort": LONG,
  "minimum": LONG,
  "binary_search": LONG,
  "quickselect": LONG,
  "bfs": LONG[:3],  # the exception that the docstring states
  "lcs_length": LONG[:3],
}
SHORT = ("minimum", "binary_search", "kmp_matcher", "naive_string_matcher")


def get_config(arg=""):
  """Variants: `cpu` is a small network for two cores; `smoke` ends in seconds."""
  names = variants(arg, ("cpu", "smoke"))
  small = bool(names)
  c = base("clrs_text", arg)
  c.data.update(name="clrs_text", algorithms=SHORT if small else tuple(TEST_LENGTHS))
  c.data.update(lengths=tuple(range(4, 13)), test_lengths=LONG if small else TEST_LENGTHS)
  c.data.update(number=200_000 if small else 400_000, test_number=1000 if small else 3000)
  c.data.update(seed=0, buckets=6 if small else 8, question_weight=0.0, curriculum=0)
  c.model = {
    "name": "transformer",
    "vocabulary": 48,  # the tokens of CLRS-Text
    "width": 256,
    "depth": 6,
    "heads": 8,
    "kv_heads": 8,
    "mlp_ratio": 4.0,
    "positions": "rope",
    "dropout": 0.0,
    "normalizer": "softmax",  # or {"name": ..., **arguments}, or a list with one for each layer
    "length_scale": False,
  }
  c.steps, c.batch_size = 50_000, 128
  c.optimizer.update(name="adamw", learning_rate=1e-3, weight_decay=0.01)
  c.optimizer.update(schedule="cosine", warmup_steps=1000, clip_norm=1.0)
  c.measure.images = 256
  del c.evaluate.accuracy
  c.evaluate.spectra = {"images": 1024, "split": "test"}
  c.evaluate.exact_match = {"examples": 3000, "remedies": REMEDIES}
  if "cpu" in names:
    c.data.curriculum = 960
    c.model.update(width=64, depth=4, heads=4, kv_heads=4)
    c.steps, c.batch_size = 24_000, 64
    c.optimizer.update(name="adam", learning_rate=3e-3, weight_decay=0.0, warmup_steps=100)
    c.measure.count = 10
    c.evaluate.spectra.images = 512
    c.evaluate.exact_match.examples = 1000
  if "smoke" in names:
    c.data.update(algorithms=("minimum", "kmp_matcher"), lengths=(4, 5), test_lengths=(8,))
    c.data.update(number=64, test_number=16, buckets=2)
    c.model.update(width=16, depth=2, heads=2, kv_heads=1)
    c.steps, c.batch_size, c.steps_per_call = 6, 8, 1
    c.optimizer.warmup_steps = 2
    c.measure.update(count=2, images=16)
    c.evaluate.spectra.images = 16
    c.evaluate.exact_match.examples = 16
  return c


def sweep(config):
  """Softmax, adaptive temperature in training, and a learned scale of log n."""
  ways = chain(
    [{"model.normalizer": "softmax", "model.length_scale": False}],
    [{"model.normalizer": "adaptive_temperature_softmax", "model.length_scale": False}],
    [{"model.normalizer": "softmax", "model.length_scale": True}],
  )
  if config.name.endswith("smoke"):
    return ways[1:]
  return [way | own for way in ways for own in product({"seed": [0]})]
