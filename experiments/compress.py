"""Makes a trained network smaller: compress.py RUN_FOLDER NEW_FOLDER --rtol=1e-3

RUN_FOLDER is that of a finished run, with result.json and checkpoints/; NEW_FOLDER gets the smaller
network, as `rankbias.surgery.load_small` reads it.
"""

import argparse
import sys

from absl import logging
from ml_collections import ConfigDict

from rankbias import experiment, surgery
from rankbias.config import base
from rankbias.data import DatasetUnavailable


def read_data(config, folder):
  """The data of a run; where they lie is not written in its folder."""
  whole = base("data")
  whole.unlock()
  whole.data.update(config.data)
  whole.data.dir = folder
  return experiment.load_data(ConfigDict(whole)).seen_by(config.seed)


def shrink(flags):
  """Reads, shrinks and saves; returns the content of the new result.json."""
  source = read_data(surgery.read_member(flags.run, flags.member), flags.data_dir)
  whole = surgery.load(flags.run, source, flags.member)
  options = {"rtol": flags.rtol, "fraction": flags.fraction, "cut": flags.cut}
  small, done = surgery.shrunk(whole, source, **options, method=flags.method)
  return surgery.save(small, flags.out, flags.run, source, done, flags.member)


def main():
  logging.set_verbosity(logging.WARNING)
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("run", help="folder of a finished run, WORKDIR/CONFIG_NAME/RUN_ID")
  parser.add_argument("out", help="folder for the smaller network")
  parser.add_argument("--rtol", type=float, help="layers at the covariance rank of their inputs")
  parser.add_argument("--fraction", type=float, help="layers at this part of their full rank")
  parser.add_argument("--cut", default="", help="layer after which a linear probe answers, or auto")
  parser.add_argument("--method", default="activations", help="or weights: what is kept best")
  parser.add_argument("--member", type=int, default=0, help="of a run of several")
  parser.add_argument("--data_dir", default="", help="folder of the data, as in main.py")
  try:
    result = shrink(parser.parse_args())
  except (ValueError, DatasetUnavailable) as error:
    sys.exit(f"{type(error).__name__}: {error}")
  before, after = result["before"], result["after"]
  print(
    f"parameters {before['parameters']:,} -> {after['parameters']:,} ({result['saved']:.1%} less)"
  )
  print(f"test accuracy {before['accuracy']:.2%} -> {after['accuracy']:.2%}")


if __name__ == "__main__":
  main()
