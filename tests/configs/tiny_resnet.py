"""A small ResNet with BatchNorm, augmentation and dropout, to compare devices and processes."""

from rankbias.config import base


def get_config(arg=""):
  c = base("tiny_resnet", arg)
  c.dtype = "float64"
  c.data.update(name="digits", limit=64, crop=2, flip=True)
  c.model = {"name": "resnet18", "width": 4, "stage_sizes": (1, 1), "dropout": 0.2}
  c.temperature = 10.0
  c.steps, c.batch_size = 6, 16
  c.measure.update(count=2, images=32)
  c.evaluate.spectra.images = 32
  c.evaluate.uncertainty = {"samples": 3, "images": 32}
  return c
