"""What the terminal shows of a run: one live line, and an estimate of the total time."""

import sys
import time

STEADY_SECONDS = 1.0  # of stepping, compilation aside, before the total is estimated


class Progress:
  """Prints a live line (step, loss, accuracy, images/s, time left) when stderr is a terminal.

  Args:
    steps: of this program.
    batch: images a step, over all members.
    label: which program of the sweep this is.
    programs_left: further programs of the same cost, counted into the estimate.
  """

  def __init__(self, steps: int, batch: int, label: str = "", programs_left: int = 0, stream=None):
    self.steps, self.batch, self.label = steps, batch, label
    self.programs_left = programs_left
    self.stream = stream or sys.stderr
    self.live = self.stream.isatty()
    self.began = time.perf_counter()
    self.stepping = 0.0  # seconds spent in steps, the first call (compilation) aside
    self.counted = 0  # steps taken in that time
    self.calls = 0
    self.announced = False

  def update(self, first: int, count: int, seconds: float, loss: float, accuracy: float) -> None:
    """Takes note of `count` steps from `first` on that took `seconds`."""
    self.calls += 1
    if self.calls > 1:
      self.stepping += seconds
      self.counted += count
    done = first + count
    if self.stepping > STEADY_SECONDS and not self.announced and self.steps > done:
      self.announced = True
      self.say(f"estimated total time {clock(self.total(done))}")
    if self.live:
      self.stream.write(f"\r\033[K{self.line(done, loss, accuracy)}")
      self.stream.flush()

  def rate(self) -> float:
    """Seconds a step, compilation aside."""
    return self.stepping / self.counted if self.counted else float("nan")

  def total(self, done: int) -> float:
    """Estimated seconds from the start of this program to the end of the last one."""
    elapsed = time.perf_counter() - self.began
    return elapsed + self.rate() * (self.steps - done + self.steps * self.programs_left)

  def line(self, done: int, loss: float, accuracy: float) -> str:
    speed, left = "", ""
    if self.counted:
      speed = f"  {self.batch / self.rate():,.0f} images/s"
      left = f"  {clock(self.rate() * (self.steps - done))} left"
    numbers = f"loss {loss:.4f}  accuracy {accuracy:.3f}"
    return f"{self.label}step {done}/{self.steps}  {numbers}{speed}{left}"

  def say(self, text: str) -> None:
    """Prints a line that stays."""
    clear = "\r\033[K" if self.live else ""
    self.stream.write(f"{clear}{self.label}{text}\n")
    self.stream.flush()

  def close(self) -> None:
    """Ends the live line."""
    if self.live:
      self.stream.write("\r\033[K")
      self.stream.flush()


def clock(seconds: float) -> str:
  """Formats seconds: 42 s, 3 min 05 s, 2 h 10 min."""
  seconds = round(seconds)
  if seconds < 60:
    return f"{seconds} s"
  if seconds < 3600:
    return f"{seconds // 60} min {seconds % 60:02d} s"
  return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
