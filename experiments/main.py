"""Runs a config, or the sweep in its file: main.py --config=configs/digits_T.py"""

import signal
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from rankbias import command, launch
from rankbias.data import DatasetUnavailable
from rankbias.train import loop, parallel, tensorboard

CONFIG = config_flags.DEFINE_config_file("config", help_string="FILE or FILE:VARIANT.")
WORKDIR = flags.DEFINE_string("workdir", launch.default_workdir(), "Where run folders go.")
SWEEP = flags.DEFINE_bool("sweep", True, "Run the sweep of the config's file; else it alone.")
RESUME = flags.DEFINE_string("resume", "", "Continue this run folder and nothing else.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Say what would run, and stop.")
TENSORBOARD = flags.DEFINE_bool("tensorboard", False, "Also write TensorBoard events.")
DISTRIBUTED = flags.DEFINE_string(
  "distributed", "off", "off | auto | host:port,processes,rank: a job of several processes."
)


def prepare():
  """Does all that may be refused: afterwards, everything is checked and loaded."""
  parallel.initialize(DISTRIBUTED.value)
  sinks = [tensorboard.Events()] if TENSORBOARD.value else []
  planned = launch.plan(
    config_flags.get_config_filename(flags.FLAGS["config"]),
    CONFIG.value,
    config_flags.get_override_values(flags.FLAGS["config"]),
    WORKDIR.value,
    use_sweep=SWEEP.value,
    resume=RESUME.value,
    dry_run=DRY_RUN.value,
  )
  return planned, sinks


def main(_):
  logging.set_verbosity(logging.WARNING)  # Orbax and jax.distributed report every step
  # Ctrl-C ends the process at once, since files are whole or absent; while training it saves first.
  signal.signal(signal.SIGINT, signal.SIG_DFL)
  with parallel.fail_together():
    try:
      planned, sinks = prepare()
    except (ValueError, DatasetUnavailable) as error:
      sys.exit(f"{type(error).__name__}: {error}")
    if DRY_RUN.value:
      return launch.describe(planned)
    try:
      launch.carry_out(planned, sinks=sinks)
    except (loop.Interrupted, KeyboardInterrupt) as error:
      sys.exit(f"Interrupted: {str(error) or 'at once'}; the same command continues")


if __name__ == "__main__":
  app.run(main, flags_parser=command.parse_flags)
