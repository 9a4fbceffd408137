"""rankbias: what the softmax does to a network, made visible and controllable."""

__version__ = "0.1.0"
