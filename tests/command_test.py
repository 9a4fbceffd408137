"""What is typed is checked against the config: one line names the field, the value, the remedy."""

import os
import pathlib
import subprocess
import sys
from types import SimpleNamespace

import pytest

from rankbias import command

ROOT = pathlib.Path(__file__).parent.parent
DIGITS = f"--config={ROOT}/configs/digits_T.py:smoke"


@pytest.mark.parametrize(
  "arguments",
  [
    [],
    ["--help"],
    ["--workdir=w", DIGITS],
    [DIGITS, "--config.temperature=3", "--config.steps=7", "--config.data.flip=true"],
    [DIGITS, "--config.optimizer.learning_rate=1e-3", "--noconfig.data.flip"],
    [DIGITS, "--config.data.dir=/a=b", "--config.data.fallback=None", "-config.seed=2"],
    ["--config", DIGITS.removeprefix("--config="), "--config.seed", "2"],
    [f"--config={ROOT}/configs/cifar_T.py:vgg,smoke", "--config.model.layers=16"],
  ],
)
def test_what_the_config_has_is_accepted(arguments):
  command.check(arguments)


@pytest.mark.parametrize(
  ("argument", "message"),
  [
    (
      "--config.lrr=3",
      r"--config.lrr is no field of .*digits_T.py:smoke; known: batch_size, .*seed",
    ),
    ("--config.optimizer.learning_rte=1", r"did you mean --config.optimizer.learning_rate\?$"),
    ("--config.learning_rate=1", r"did you mean --config.optimizer.learning_rate\?$"),
    ("--config.tempreature=1", r"did you mean --config.temperature\?$"),
    ("--config.model.nrm=batch", r"Options that the file does not name are added in the file.$"),
    ("--config.steps=1e3", r"--config.steps=1e3 must be a whole number; in the file it is 40$"),
    ("--config.steps=", r"--config.steps= must be a whole number"),
    (
      "--config.temperature=hot",
      r"--config.temperature=hot must be a number; in the file it is 1.0$",
    ),
    ("--config.data.flip=maybe", r"--config.data.flip=maybe must be true or false"),
    ("--config.data=3", r"--config.data is no field of"),
  ],
)
def test_a_mistake_is_named_in_one_line(argument, message):
  with pytest.raises(ValueError, match=message) as caught:
    command.check([DIGITS, argument])
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--config.steps=3"], "--config.steps needs --config=FILE before it"),
    (
      [f"--config={ROOT}/configs/digitsT.py"],
      "does not exist; known: .*did you mean .*digits_T.py'",
    ),
    ([f"--config={ROOT}/nowhere/a.py"], "does not exist; give a path such as configs/digits_T.py"),
    ([DIGITS.replace("smoke", "smok")], "variant 'smok' is unknown; .*did you mean 'smoke'"),
  ],
)
def test_a_config_that_is_not_there_is_named(arguments, message):
  with pytest.raises(ValueError, match=message):
    command.check(arguments)


@pytest.mark.parametrize(
  ("rest", "message"),
  [
    (["main.py"], "^ValueError: --config is missing; give a file such as"),
    (
      ["main.py", "x"],
      r"^ValueError: unexpected arguments \['x'\]; fields are --config.FIELD=VALUE",
    ),
  ],
)
def test_parsing_ends_the_process_with_one_line(monkeypatch, rest, message):
  monkeypatch.setattr(command.flags, "FLAGS", SimpleNamespace(config=None))
  monkeypatch.setattr(command.app, "parse_flags_with_usage", lambda argv: rest)
  with pytest.raises(SystemExit, match=message):
    command.parse_flags(["main.py"])


def test_main_answers_a_misspelt_field_without_a_traceback(tmp_path):
  main = [sys.executable, str(ROOT / "experiments" / "main.py"), f"--workdir={tmp_path}", DIGITS]
  done = subprocess.run(
    [*main, "--config.optimizer.learning_rte=1"],
    env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    timeout=100,
  )
  (line,) = done.stderr.splitlines()
  assert done.returncode == 1 and done.stdout == ""
  assert line.endswith("did you mean --config.optimizer.learning_rate?")
  assert not any(tmp_path.iterdir())
