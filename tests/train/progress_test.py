"""The progress line: quiet when nobody watches, exact in what it says."""

import io

from rankbias.train.progress import Progress, clock


class Terminal(io.StringIO):
  """A stream that says it is a terminal."""

  def isatty(self):
    return True


def test_quiet_without_a_terminal_but_for_the_estimate():
  stream = io.StringIO()
  progress = Progress(1000, 128, programs_left=1, stream=stream)
  progress.update(0, 10, 5.0, 1.0, 0.1)  # compilation: not counted
  progress.update(10, 90, 9.0, 1.0, 0.1)
  progress.update(100, 100, 10.0, 0.5, 0.5)
  assert stream.getvalue() == "estimated total time 3 min 10 s\n"


def test_line_on_a_terminal():
  stream = Terminal()
  progress = Progress(1000, 128, label="[1/2] ", stream=stream)
  progress.update(0, 10, 5.0, 1.0, 0.1)
  progress.update(10, 90, 9.0, 0.25, 0.5)
  assert "[1/2] step 100/1000  loss 0.2500  accuracy 0.500  1,280 images/s  1 min 30 s left" in (
    stream.getvalue()
  )


def test_clock():
  assert [clock(s) for s in (4.4, 185, 7800)] == ["4 s", "3 min 05 s", "2 h 10 min"]
