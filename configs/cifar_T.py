"""How does the temperature of the softmax set the rank of what a network learns on CIFAR-10?

Claim: at high temperature, networks find solutions of rank far below the number of classes
(Masarczyk et al. 2025, arXiv:2506.01562). The paper shows it for MLP, VGG, ResNet and ViT on
CIFAR-10, CIFAR-100 and ImageNet; its temperatures and training settings are not known to us, so the
settings below are our own.

  python experiments/main.py --config=configs/cifar_T.py
  python experiments/main.py --config=configs/cifar_T.py:resnet18     (an accelerator)
  python experiments/main.py --config=configs/cifar_T.py:vgg          (an accelerator)

The default is an 8-layer bias-free ReLU MLP of width 256 with random flips, 3,920 steps of 256
images (20 epochs) at T = 0.1, 1, 10, 100, 1000 and three seeds, learning rate 0.02 T^(2/8) with
cosine decay. The variants train 160 epochs (62,560 steps of 128) with the settings usual for CIFAR:
SGD at 0.1, momentum 0.9, weight decay 5e-4, cosine decay, random crops and flips, and the same
learning rate at every T.

Without CIFAR-10 and without a network, the whole recipe of configs/digits_T.py runs instead, says
so, and goes to a folder of its own.

Measured (docs/results.md), MLP, mean and standard deviation of three seeds:

  T     test accuracy, %   covariance rank of the last hidden layer   of the logits
  1     54.4 +- 0.4        218 +- 2                                   10
  10    56.1 +- 0.1        121 +- 5                                    9
  100   56.4 +- 0.4         40 +- 2                                    9
  1000  55.6 +- 0.0         21 +- 1                                    8

in 20 minutes of two busy CPU cores. T = 0.1 is beyond the edge of stability at this learning rate:
one seed of three diverged. The variants are not measured yet.
"""

from rankbias.config import base, product, variants

IMAGES = 50_000


def get_config(arg=""):
  """Variants: `resnet18`, `vgg`, and `smoke`, which ends in seconds."""
  names = variants(arg, ("resnet18", "vgg", "smoke"))
  c = base("cifar_T", arg)
  c.data.update(name="cifar10", fallback="digits_T", flip=True)
  c.batch_size = 256
  c.steps = 20 * -(-IMAGES // c.batch_size)
  c.model.update(name="mlp", depth=8, width=256, use_bias=False)
  c.members_per_program = 1  # on two cores, several such networks at once leave the cache
  c.optimizer.update(learning_rate=0.02, learning_rate_rule="equivalent", schedule="cosine")
  if names & {"resnet18", "vgg"}:
    c.data.crop = 4
    c.batch_size = 128
    c.steps = 160 * -(-IMAGES // c.batch_size)
    c.optimizer.update(learning_rate=0.1, learning_rate_rule="same", weight_decay=5e-4)
    c.head.use_bias = True
  if "resnet18" in names:
    c.model = {"name": "resnet18"}
  if "vgg" in names:
    c.model = {"name": "vgg", "layers": 19}
  if "smoke" in names:
    c.data.update(limit=256, fallback="digits_T:smoke")
    c.steps, c.batch_size = 4, 16
    c.measure.update(count=3, images=64)
    if names == {"smoke"}:
      c.model.update(depth=4, width=32)
    elif "resnet18" in names:
      c.model.update(width=8)
    else:
      c.model.update(layers=11, width=8)
  return c


def sweep(config):
  """Five temperatures, three seeds; two and one for the smoke test."""
  if config.name.endswith("smoke"):
    return product({"temperature": [1.0, 100.0], "seed": [0]})
  return product({"temperature": [0.1, 1.0, 10.0, 100.0, 1000.0], "seed": [0, 1, 2]})
