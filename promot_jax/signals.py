"""SIGTERM and SIGINT: finish the step and save; a second one stops at once.

The first signal only sets a flag, which whoever works asks between two steps.  A thread watches too,
because Python runs its handlers between bytecodes only, may lose what they raise inside a callback of
a library, and a compilation may take minutes: the thread ends the process when the grace time is over,
when a second signal comes, or with the first one while there is nothing to save.  Ending a process so
is safe: what is written takes its place whole (`undone_at_end`), and the system drops the lease.

Imports nothing heavy: the command line catches signals from its first line on.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

from promot_jax import errors

CAUGHT = (signal.SIGTERM, signal.SIGINT)
_LAST_WORDS_SECONDS = 2  # for a screen that takes nothing more, such as a full pipe


class Stop:
  """Whether a stop was requested, and what may be lost by stopping now.

  Attributes:
    requested: name of the signal, or None.
    nothing_to_save: True while stopping at once loses no work (set by whoever works).
    at_once: whether a signal ends the process where there is nothing to save.  Not where others wait
      for it: they learn of the signal with the next step, and all end together.
    work: what is finished before the process stops, in words.
    waits: whether this process only waits for another one, whose all signals are (`pass_on`).
    passed: numbers of the signals that were taken for it.
    ended: exit code of the finished work: the process is about to end, and a signal only hastens it.
  """

  def __init__(self, *, at_once: bool = True, nothing_to_save: bool = False) -> None:
    self.requested: str | None = None
    self.nothing_to_save = nothing_to_save
    self.at_once = at_once
    self.work = "the step"
    self.waits = False
    self.ended: int | None = None
    self.passed: list[int] = []
    self._pass_on: Callable[[int], object] | None = None
    self._lock = threading.Lock()

  def pass_on(self, send: Callable[[int], object]) -> list[int]:
    """From now on signals are sent on instead; gives those that came before."""
    with self._lock:
      self._pass_on = send
      return list(self.passed)

  def take(self, number: int) -> bool:
    """Whether a signal is another process's; sends it there."""
    with self._lock:
      if not self.waits:
        return False
      self.passed.append(number)
      if self._pass_on is not None:
        with contextlib.suppress(OSError):
          self._pass_on(number)
      return True


_active: Stop | None = None
_whole = threading.RLock()  # held while something takes its place; never given back at the end
_undo: list[Callable[[], object]] = []


def current() -> Stop:
  """The `Stop` of the signals that are caught now; one that is never requested if none are."""
  return _active if _active is not None else Stop()


@contextlib.contextmanager
def catch(
  *,
  report: Callable[[str], None] | None = lambda text: None,
  grace_seconds: float | None = 120.0,
  at_once: bool = True,
  nothing_to_save: bool = False,
  code: int | None = errors.Preempted.exit_code,
) -> Iterator[Stop]:
  """Catches the signals for the body and gives the `Stop` to ask.

  Nested uses share the outer one.  Outside the main thread, where Python cannot catch signals, the
  `Stop` is never requested.

  Args:
    report: receives a line when a signal arrives; None: it goes to the screen, even while stderr is
      turned elsewhere.
    grace_seconds: time from SIGTERM to the end of the process, saved or not; None waits for ever.
    at_once, nothing_to_save: see `Stop`; at the start.
    code: exit code of a process that a first signal ends; None: 128 + the signal's number, for a
      command of which nothing is left to go on with.
  """
  global _active
  if _active is not None:
    # Once others wait for this process, no signal may end it alone.
    _active.at_once = _active.at_once and at_once
    yield _active
    return
  stop = Stop(at_once=at_once, nothing_to_save=nothing_to_save)
  if threading.current_thread() is not threading.main_thread():
    yield stop
    return
  reading, writing = os.pipe()
  # set_wakeup_fd asks for a descriptor that does not block.
  os.set_blocking(writing, False)
  screen = _screen() if report is None else -1
  former_descriptor = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
  # Handlers that do nothing must be there: without them the system's own would end the process.
  former = {number: signal.signal(number, _noted) for number in CAUGHT}
  tell = report or (lambda text: _write(screen, text))
  watcher = threading.Thread(
    target=_watch, args=(reading, stop, tell, grace_seconds, code), name="signals", daemon=True
  )
  watcher.start()
  _active = stop
  try:
    yield stop
  finally:
    # After the end of the work signals stay caught: the exit code is decided, and what is left is
    # the interpreter's own end.
    if stop.ended is None:
      _active = None
      signal.set_wakeup_fd(former_descriptor)
      for number, handler in former.items():
        signal.signal(number, handler)
      # The watcher reads the end of the pipe, and ends.
      os.close(writing)
      watcher.join(timeout=5)
      os.close(reading)
      if screen >= 0:
        os.close(screen)


@contextlib.contextmanager
def undone_at_end(undo: Callable[[], object]) -> Iterator[None]:
  """Calls `undo` if a signal ends the process within the block: removes what is half-written."""
  _undo.append(undo)
  try:
    yield
  finally:
    _undo.remove(undo)


def undivided() -> contextlib.AbstractContextManager:
  """A block that no signal ends in its middle, such as a rename; it must be short."""
  return _whole


def _noted(number: int, frame: object) -> None:
  """Does nothing: the watching thread has the signal already."""


def _watch(
  reading: int,
  stop: Stop,
  report: Callable[[str], None],
  grace_seconds: float | None,
  code: int | None,
) -> None:
  """Receives one byte a signal; ends when the other end of the pipe is closed."""
  deadline: threading.Timer | None = None
  while True:
    try:
      # Sleeps in the system until a signal comes, whatever the other threads are at.
      numbers = os.read(reading, 16)
    except OSError:
      numbers = b""
    if not numbers:
      if deadline is not None:
        deadline.cancel()
      return
    for number in numbers:
      if number not in CAUGHT:
        continue
      name = signal.Signals(number).name
      if stop.ended is not None:
        os._exit(stop.ended)
      # Of another process, which decides what is done, also about a second signal.
      if stop.take(number):
        continue
      if stop.requested is not None:
        _end(report, f"second signal ({name}): stopping at once", 128 + number)
      stop.requested = name
      if stop.nothing_to_save and stop.at_once:
        again = "" if code is None else ". Repeat the same command to go on"
        _end(report, f"{name}: stopped; there was nothing to save{again}", code or 128 + number)
      # Schedulers send it, and end the process by themselves after a while.
      if number == signal.SIGTERM and grace_seconds is not None:
        words = "the grace time is over: stopping without saving"
        deadline = threading.Timer(grace_seconds, _end, (report, words, errors.Preempted.exit_code))
        deadline.daemon = True
        deadline.start()
      report(f"{name}: finishing {stop.work}, then saving; a second signal stops at once")


def _end(report: Callable[[str], None], text: str, code: int) -> None:
  """Ends the process from whatever thread, also while another one is compiling."""
  try:
    # A rename is let to its end, though not for ever; and none begins after it.
    _whole.acquire(timeout=5)
    teller = threading.Thread(target=report, args=(f"{text} (exit {code})",), daemon=True)
    teller.start()
    for _ in range(3):  # another thread may still be writing there
      for undo in tuple(_undo):
        with contextlib.suppress(Exception):
          undo()
      if _undo:
        time.sleep(0.02)
    teller.join(_LAST_WORDS_SECONDS)
  finally:
    # Not sys.exit, which would end this thread alone and leave a compilation running.
    os._exit(code)


def _screen() -> int:
  """A descriptor of its own for stderr, which is turned elsewhere while noisy libraries load."""
  try:
    return os.dup(2)
  except OSError:  # closed
    return os.open(os.devnull, os.O_WRONLY)


def _write(screen: int, text: str) -> None:
  start = "\r\x1b[K" if os.isatty(screen) else ""  # in place of a bar
  with contextlib.suppress(OSError):
    os.write(screen, f"{start}{text}\n".encode())
