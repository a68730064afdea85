"""What a run tells: metrics for programs, lines and progress for people.

The loop reports once, to `Events`, which passes everything to its sinks.  A sink that fails is
dropped with one line: a broken metrics file must not stop a training run.
"""

import dataclasses
import json
import logging
import math
import os
import pathlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TextIO

from promot_jax.printable import visible

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scalars:
  """Metrics of one step.

  Attributes:
    stage: name of the stage.
    kind: 'train', 'validation' or another series.
    step: updates done in the stage.
    values: means, by name.
  """

  stage: str
  kind: str
  step: int
  values: Mapping[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
  """How far a stage, or an evaluation, is; `None` where nothing was measured yet.

  Attributes:
    stage: name of the stage, or of what is evaluated.
    step: updates (or what `unit` says) done, resumed ones included.
    steps: updates in all.
    loss: of the newest finished step.
    learning_rate: of the newest finished step.
    tokens_per_second: real tokens (no padding), inputs and targets, while training.
    steps_per_second: updates while training.
    seconds_left: to the end of the stage at the pace so far, validation and saving included.
    unit: what is counted: 'step' or 'example'.
    tasks: of an evaluation of several tasks, how many are done and how many there are.
  """

  stage: str
  step: int
  steps: int
  loss: float | None = None
  learning_rate: float | None = None
  tokens_per_second: float | None = None
  steps_per_second: float | None = None
  seconds_left: float | None = None
  unit: str = "step"
  tasks: tuple[int, int] | None = None


class Sink(Protocol):
  """Where events go.  Methods are called by one thread at a time."""

  def scalars(self, event: Scalars) -> None: ...

  def line(self, text: str) -> None: ...

  def progress(self, event: Progress) -> None: ...

  def rewind(self, stage: str, step: int) -> None:
    """A stage goes on from `step`: later metrics, and its validation, will be reported again."""

  def close(self) -> None: ...


class Events:
  """Passes events to all sinks; safe to call from several threads."""

  def __init__(self, sinks: Sequence[Sink] = ()) -> None:
    self._sinks = list(sinks)
    # Reentrant: a sink that fails is reported as a line, from inside of the very same call.
    self._lock = threading.RLock()

  def scalars(self, event: Scalars) -> None:
    self._send(lambda sink: sink.scalars(event))

  def line(self, text: str) -> None:
    self._send(lambda sink: sink.line(text))

  def progress(self, event: Progress) -> None:
    self._send(lambda sink: sink.progress(event))

  def rewind(self, stage: str, step: int) -> None:
    self._send(lambda sink: sink.rewind(stage, step))

  def close(self) -> None:
    self._send(lambda sink: sink.close())

  def _send(self, call: Callable[[Sink], None]) -> None:
    with self._lock:
      # A copy, as a sink that fails is taken out on the way.
      for sink in list(self._sinks):
        # One that failed meanwhile, on the line about another, is gone.
        if sink not in self._sinks:
          continue
        try:
          call(sink)
        except Exception as error:
          # Maybe taken out already, where it failed on a line that it brought about itself.
          self._sinks = [other for other in self._sinks if other is not sink]
          self.line(f"{type(sink).__name__} failed and gets no more events: {error}")


class JsonLines:
  """One JSON object a line: {"stage", "kind", "step", "time", metrics...}; NaN becomes null.

  A resumed run removes what the interrupted one wrote after the step it resumes from, so that each
  step is there exactly once.  Lines that cannot be read are removed too, and counted.

  Args:
    path: the file.
    report: receives a line about lines that could not be read; by default the log.
  """

  def __init__(
    self, path: str | os.PathLike, *, report: Callable[[str], None] = _log.warning
  ) -> None:
    self._path = pathlib.Path(path)
    self._report = report
    self._path.parent.mkdir(parents=True, exist_ok=True)
    # Appended to: a run that goes on keeps the lines that `rewind` leaves.
    self._stream = self._path.open("a")

  def scalars(self, event: Scalars) -> None:
    values = {name: value if math.isfinite(value) else None for name, value in event.values.items()}
    head = {"stage": event.stage, "kind": event.kind, "step": event.step, "time": time.time()}
    self._stream.write(json.dumps({**head, **values}) + "\n")
    # A line at once: the file may be followed by others, and a kill may come at any time.
    self._stream.flush()

  def line(self, text: str) -> None:
    pass

  def progress(self, event: Progress) -> None:
    pass

  def rewind(self, stage: str, step: int) -> None:
    # Bytes, because a damaged file need not be text; \n ends a line, and only what a kill tore has none.
    lines = [line + b"\n" for line in self._path.read_bytes().split(b"\n")]
    torn = lines.pop() != b"\n"
    records = [_record(line) for line in lines]
    damaged = records.count(None)
    if damaged:
      self._report(f"{self._path}: {damaged} of {len(lines)} lines cannot be read and are removed")
    # A line that cannot be read goes too: programs that read the file would stop at it.
    kept = [
      line for line, record in zip(lines, records) if record and _survives(record, stage, step)
    ]
    # Nothing to remove: the file, maybe a large one, is not written again.
    if kept == lines and not torn:
      return
    # Written beside it and renamed: a kill in here leaves either the old file or the new one.
    temporary = self._path.with_name(f".{self._path.name}.tmp-{os.getpid()}")
    temporary.unlink(missing_ok=True)  # a link there would be followed
    temporary.write_bytes(b"".join(kept))
    temporary.rename(self._path)
    # The open stream still points at the file that was replaced.
    self._stream.close()
    self._stream = self._path.open("a")

  def close(self) -> None:
    self._stream.close()


class Console:
  """Lines for a person: a bar on a terminal, else one progress line every `seconds`.

  Args:
    width: columns of the terminal; None asks it before each bar, so that it may be resized.
  """

  def __init__(self, stream: TextIO, *, seconds: float = 10.0, width: int | None = None) -> None:
    self._stream = stream
    # A stream of a notebook or a test may have no isatty.
    self._terminal = bool(getattr(stream, "isatty", lambda: False)())
    self._seconds = 0.2 if self._terminal else seconds
    self._width = width
    self._last = -math.inf
    self._bar = False

  def scalars(self, event: Scalars) -> None:
    if event.kind != "train":  # training metrics are in the progress line
      values = "  ".join(f"{name} {value:.4g}" for name, value in event.values.items())
      self.line(f"{event.stage} {event.kind} at step {event.step}: {values}")

  def line(self, text: str) -> None:
    self._clear()
    self._write(visible(text, kept="\n\t") + "\n")
    self._stream.flush()

  def progress(self, event: Progress) -> None:
    if self._terminal and event.step >= event.steps:
      self._clear()  # what is printed next, perhaps by others, begins an empty line
      return
    now = time.monotonic()
    if now - self._last < self._seconds:
      return
    self._last = now
    if not self._terminal:
      self.line(progress_text(event))
      return
    self._clear()
    # The last column stays free: some terminals begin a new line there.
    self._write(progress_text(event, width=(self._width or _columns(self._stream)) - 1))
    self._stream.flush()
    self._bar = True

  def rewind(self, stage: str, step: int) -> None:
    pass

  def close(self) -> None:
    self._clear()
    self._stream.flush()

  def _clear(self) -> None:
    if self._bar:
      self._stream.write("\r\x1b[K")
      self._bar = False

  def _write(self, text: str) -> None:
    try:
      self._stream.write(text)
    except UnicodeEncodeError:  # a terminal that is not UTF-8
      plain = text.replace("█", "#").replace("░", ".")
      self._stream.write(plain.encode("ascii", "replace").decode())


_LESS_IMPORTANT = ("tokens", "learning rate", "rate", "loss", "tasks", "left")
_BAR = (8, 40)  # columns that a bar has at least and at most


def progress_text(event: Progress, *, width: int | None = None) -> str:
  """'prompt  step 312/500  loss 0.412  learning rate 0.3  18.2k tokens/s  4.8 steps/s  left 0:00:40'.

  Args:
    width: columns of a terminal; what is least important is left out until the rest fits, and a bar
      takes what remains.  None: one line with everything.
  """
  parts = _parts(event)
  if width is None:
    return "  ".join(parts.values())
  for name in _LESS_IMPORTANT:
    if len("  ".join(parts.values())) <= width:
      break
    parts.pop(name, None)
  text = "  ".join(parts.values())
  room = min(_BAR[1], width - len(text) - 2)
  if room >= _BAR[0]:
    done = room * event.step // max(1, event.steps)
    bar = "█" * done + "░" * (room - done)
    text = "  ".join([parts.pop("stage"), bar, *parts.values()])
  if len(text) > width:  # the end of a name tells more than its beginning: prompt_tuning prompt-500
    name, count = parts.get("stage", visible(event.stage)), parts["count"]
    room = width - len(count) - 2
    text = f"{'…' + name[len(name) - room + 1 :]}  {count}" if room > 4 else count[: max(0, width)]
  return text


def _parts(event: Progress) -> dict[str, str]:
  """What there is to say, by name, in the order of the line."""
  parts = {"stage": visible(event.stage), "count": f"{event.unit} {event.step}/{event.steps}"}
  if event.tasks is not None:
    parts["tasks"] = f"task {event.tasks[0]}/{event.tasks[1]}"
  if event.loss is not None:
    parts["loss"] = f"loss {event.loss:.4g}"
  if event.learning_rate is not None:
    parts["learning rate"] = f"learning rate {event.learning_rate:.3g}"
  if event.tokens_per_second is not None:
    parts["tokens"] = f"{_thousands(event.tokens_per_second)} tokens/s"
  if event.steps_per_second is not None:
    parts["rate"] = f"{event.steps_per_second:.3g} {event.unit}s/s"
  if event.seconds_left is not None:
    left = int(event.seconds_left + 0.5)
    parts["left"] = f"left {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
  return parts


def _columns(stream: TextIO) -> int:
  """Width of the terminal behind a stream: 80 where it tells none."""
  try:
    return os.get_terminal_size(stream.fileno()).columns or 80
  except (OSError, ValueError, AttributeError):
    return 80


def _thousands(value: float) -> str:
  return f"{value / 1000:.1f}k" if value >= 1000 else f"{value:.0f}"


def _record(line: bytes) -> dict[str, Any] | None:
  """The record in a line of metrics; None if it is none."""
  try:
    found = json.loads(line)
  except (ValueError, RecursionError):
    return None
  shape = {"stage": str, "kind": str, "step": int}
  known = isinstance(found, dict) and all(
    isinstance(found.get(name), kind) for name, kind in shape.items()
  )
  return found if known else None


def _survives(record: Mapping[str, Any], stage: str, step: int) -> bool:
  """Whether a record is not of this stage's later steps."""
  last = step - 1 if record["kind"] == "validation" else step
  return record["stage"] != stage or record["step"] <= last
