"""Where the host's loop stops, what it feeds, and how it ends on a signal."""

import os
import signal

import numpy as np
import pytest

from rankbias.train import loop, parallel


def test_log_spaced_is_dense_first_and_has_both_ends():
  marks = loop.log_spaced(4000, 20)
  assert marks[:4] == [0, 1, 2, 3] and marks[-1] == 4000
  assert 18 <= len(marks) <= 20
  assert loop.log_spaced(1, 20) == [0, 1]
  assert loop.log_spaced(50, 1) == [50]


def test_every_ends_with_the_last_step():
  assert loop.every(10, 3) == [3, 7, 10]
  assert loop.every(2, 10) == [1, 2]


def fake_chunk(calls):
  """A chunk that adds up the rows it is fed, on the host."""

  def chunk(state, feed, constants):
    count = int(feed["count"][0])
    calls.append(count)
    rows = np.concatenate(list(feed["rows"]), axis=-1)[:count]
    return state + rows.sum(), {"loss": rows.mean((1, 2))}

  return chunk


def run(calls, hooks, start=0, steps=23, length=10, interrupted=None):
  seen = []
  state = loop.train(
    fake_chunk(calls),
    0,
    None,
    rows=lambda s: np.full((1, 4), s, np.int32),
    start=start,
    steps=steps,
    length=length,
    hooks=hooks,
    on_metrics=lambda first, metrics, seconds: seen.append((first, metrics["loss"].tolist())),
    on_interrupt=lambda step, state: interrupted.append((step, state)),
  )
  return state, seen


def test_every_step_is_taken_once_whatever_the_stops():
  visited, calls = [], []
  hook = loop.Hook(frozenset({0, 1, 5, 23}), lambda step, state: visited.append(step))
  state, seen = run(calls, [hook])
  assert state == 4 * sum(range(23))
  assert calls == [1, 4, 10, 8]
  assert visited == [0, 1, 5, 23]
  assert [x for _, losses in seen for x in losses] == list(range(23))


def test_a_resumed_loop_continues_and_does_not_visit_its_start():
  visited, calls = [], []
  hook = loop.Hook(frozenset({0, 5, 23}), lambda step, state: visited.append(step))
  state, _ = run(calls, [hook], start=5)
  assert state == 4 * sum(range(5, 23)) and visited == [23]


def test_sigterm_saves_and_interrupts():
  calls, saved = [], []
  hook = loop.Hook(frozenset({5}), lambda step, state: os.kill(os.getpid(), signal.SIGTERM))
  with pytest.raises(loop.Interrupted, match="after 5 of 23 steps"):
    run(calls, [hook], interrupted=saved)
  assert saved == [(5, 4 * sum(range(5)))]
  assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_ctrl_c_saves_and_says_so_and_a_second_one_stops_at_once(capfd):
  before = signal.getsignal(signal.SIGINT)  # ignored where the tests run in the background

  def press(step, state):
    signal.raise_signal(signal.SIGINT)

  calls, saved = [], []
  hooks = [loop.Hook(frozenset({5}), press)]
  with pytest.raises(loop.Interrupted, match="after 5 of 23 steps"):
    run(calls, hooks, interrupted=saved)
  assert [step for step, _ in saved] == [5]
  assert "Ctrl-C again stops at once" in capfd.readouterr().err
  with pytest.raises(KeyboardInterrupt):
    run(calls, hooks * 2, interrupted=saved)
  assert len(saved) == 1
  assert signal.getsignal(signal.SIGINT) == before


def test_feed_is_cut_over_devices_without_changing_the_order():
  def rows(step):
    return np.arange(8, dtype=np.int32)[None] + 10 * step

  feed = loop.make_feed(rows, lambda s: s % 3, 2, 4, 5)
  assert feed["rows"].shape == (4, 5, 1, 2)
  np.testing.assert_array_equal(np.concatenate(list(feed["rows"]), -1)[0, 0], 20 + np.arange(8))
  np.testing.assert_array_equal(np.concatenate(list(feed["positions"])), np.arange(8))
  assert feed["variant"].tolist() == [[2, 0, 0, 0, 0]] * 4
  assert feed["count"].tolist() == [2] * 4


def test_batch_that_does_not_divide_is_refused():
  with pytest.raises(ValueError, match="batch_size=10 does not divide over 4 devices; use 8 or 12"):
    parallel.check_batch(10)
  with pytest.raises(ValueError, match="batch_size=0"):
    parallel.check_batch(0)
  parallel.check_batch(12)


def test_distributed_flag_that_makes_no_sense_is_refused():
  with pytest.raises(ValueError, match="--distributed='localhost' is not understood"):
    parallel.initialize("localhost")
