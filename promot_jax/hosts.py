"""One run on several hosts: every process runs the same program, and here they come to agree.

Process 0 speaks, holds the lease and writes the small files.  What it finds on disk it tells the
others, because two processes that see a directory differently would take different ways and then
wait for each other for ever.  A failure that one process reports is raised by all of them, so that
they end together.  With one process every function here is a plain call.

All processes must call these functions in the same order, from their main thread.
"""

import contextlib
import functools
import json
import os
import pathlib
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from promot_jax import errors

T = TypeVar("T")

_SHORTEST = 1024  # bytes of an exchange; longer ones take powers of two, so that few are compiled


def count() -> int:
  """Number of processes; does not start the devices of a process that is alone."""
  return jax.process_count() if jax.distributed.is_initialized() else 1


def several() -> bool:
  """Whether other processes take part in the run."""
  return count() > 1


def is_first() -> bool:
  """Whether this is the process that speaks and writes."""
  return not several() or jax.process_index() == 0


def gather(value: Any) -> list[Any]:
  """The JSON values of all processes, in the order of their numbers.

  Raises:
    PromotError: another process has failed and tells so with this exchange.
  """
  return _exchange(value, None) if several() else [value]


def together(call: Callable[[], T]) -> T:
  """What `call` gives to this process; where it fails in any process, it fails in all.

  `call` may use the functions of this module, but may not wait for the devices of other processes
  after a point where it may fail in one process alone.

  Raises:
    PromotError: of the first process that failed, with `of_all` set.
  """
  if not several():
    return call()
  result: Any = None
  # Raised behind the exchange only: until then the others wait there for this process.
  failure: Exception | None = None
  try:
    result = call()
  except Exception as error:
    if getattr(error, "of_all", False):  # the others know
      raise
    failure = error
  _exchange(None, failure)
  return result


def first(call: Callable[[], T]) -> T:
  """What `call`, run by process 0 alone, gives: a JSON value, the same in all processes.

  Raises:
    PromotError: it failed, with `of_all` set.
  """
  if not several():
    return call()
  value: Any = None
  # As in `together`: told with the exchange, at which the others wait.
  failure: Exception | None = None
  if is_first():
    try:
      value = call()
    except Exception as error:
      failure = error
  return _exchange(value, failure)[0]


def only_first(call: Callable[[], T]) -> T | None:
  """What `call` gives, in process 0; the others wait for its end and get None.

  Raises:
    PromotError: it failed, with `of_all` set.
  """
  return together(lambda: call() if is_first() else None)


def in_turn(call: Callable[[], T]) -> T:
  """`call` in process 0, and when it has ended in all others: what it prepares is made once.

  Raises:
    PromotError: as `together`.
  """
  result = only_first(call)
  if not several():
    return result  # type: ignore[return-value]
  return together(lambda: result if is_first() else call())  # type: ignore[return-value,arg-type]


def of_all(error: errors.PromotError) -> errors.PromotError:
  """An error that every process raises by itself, marked so that one speaks for all."""
  error.of_all = several()
  return error


def anywhere(flag: object) -> bool:
  """Whether any process has the flag set."""
  return any(gather(bool(flag)))


def _exchange(value: Any, failure: Exception | None) -> list[Any]:
  """The values of all processes; the failure of the first that has one is raised by all."""
  told = _all_gathered([value, failure and [type(failure).__name__, str(failure)]])
  for process, (_, described) in enumerate(told):
    if described is not None:
      # The process itself raises its own exception, which has the traceback.
      if failure is None or process != jax.process_index():
        failure = _of_other(process, *described)
      failure.of_all = True  # type: ignore[attr-defined]
      raise failure
  return [value for value, _ in told]


def _all_gathered(value: Any) -> list[Any]:
  from jax.experimental import multihost_utils

  # Only arrays of one shape can be gathered: JSON as bytes, of which the lengths go first.
  data = np.frombuffer(json.dumps(value).encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.asarray(len(data), np.int32)).ravel()
  # Powers of two, so that few programs are compiled for all messages.
  padded = np.zeros(max(_SHORTEST, 1 << int(sizes.max() - 1).bit_length()), np.uint8)
  padded[: len(data)] = data
  rows = multihost_utils.process_allgather(padded)  # [processes, bytes]
  return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes)]


def _of_other(process: int, kind: str, text: str) -> errors.PromotError:
  """The failure of another process, of the same kind where it is one of ours."""
  known = getattr(errors, kind, None)
  if isinstance(known, type) and issubclass(known, errors.PromotError):
    return known(text if process == 0 else f"process {process} of {count()}: {text}")
  return errors.PromotError(f"process {process} of {count()} failed with {kind}: {text}")


class Votes:
  """A small number from every process with each step; the largest of them is read later.

  Reading one of a few steps ago never waits for the device, and all processes read the same.
  """

  def __init__(self) -> None:
    devices = np.array(jax.devices())
    mesh = Mesh(devices, ("device",))
    self._split = NamedSharding(mesh, PartitionSpec("device"))
    self._shape = (len(devices),)
    everywhere = NamedSharding(mesh, PartitionSpec())
    self._largest = jax.jit(_largest, out_shardings=everywhere)

  def cast(self, number: int) -> jax.Array:
    """Starts a vote; `int(...)` of the result waits for it."""
    # Each device of this process votes the same.
    mine = np.asarray([number], np.int32)
    return self._largest(jax.make_array_from_callback(self._shape, self._split, lambda index: mine))


def _largest(votes: jax.Array) -> jax.Array:
  return votes.max()


@contextlib.contextmanager
def held_by_first(acquire: Callable[[], contextlib.AbstractContextManager]) -> Iterator[None]:
  """A context that process 0 holds for all; a failure to get it is raised by all.

  Raises:
    PromotError: as `only_first`.
  """
  held = only_first(acquire)
  with held if held is not None else contextlib.nullcontext():
    yield


def check_shared(directory: str | os.PathLike, *, seconds: float = 30.0) -> None:
  """Whether what process 0 writes to a directory is seen by all others.

  Args:
    directory: exists for process 0, which can write to it.
    seconds: how long a network file system may take to show a new file.

  Raises:
    ConfigError: some process has a directory of its own under this name.
  """
  if not several():
    return
  # A name nobody had before: what an earlier start left there must not pass for this one's.
  probe = pathlib.Path(directory) / first(lambda: f".shared-{uuid.uuid4().hex}")
  only_first(probe.touch)
  try:
    together(functools.partial(_wait_for, probe, seconds))
  finally:
    if is_first():
      probe.unlink(missing_ok=True)


def _wait_for(probe: pathlib.Path, seconds: float) -> None:
  deadline = time.monotonic() + seconds
  while not probe.exists():
    if time.monotonic() > deadline:
      raise errors.ConfigError(
        f"{probe.parent} is not the directory of that name that process 0 writes to; give a"
        " --model_dir on a file system that all hosts have mounted."
      )
    time.sleep(0.1)
