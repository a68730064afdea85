"""How a command ends that fails: one sentence, its exit code, and the traceback where it belongs.

Most failures are raised as one of `promot_jax.errors` where their cause is known.  What the operating
system, Python or XLA refuse may come up anywhere: `explained` knows these by kind.
"""

import errno
import os
import pathlib
import shutil
import sys
import tempfile
import time
import traceback

from promot_jax.cli import cluster
from promot_jax.cli.flags import Flags
from promot_jax.errors import CannotWrite, ConfigError, OutOfResources, Preempted, PromotError
from promot_jax.printable import visible

_LAST_WORDS_SECONDS = 3
_CLEARED = "\r\x1b[K"  # takes a progress bar off the line
_NOT_WRITTEN = (
  errno.ENOSPC,
  errno.EDQUOT,
  errno.EROFS,
  errno.EFBIG,
  errno.EACCES,
  errno.EPERM,
  errno.EIO,
)
_NOT_THAT_KIND = (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
_SHORTAGES = {
  errno.EMFILE: "it may open no more files; raise the limit with ulimit -n",
  errno.ENFILE: "the machine may open no more files; end other programs",
  errno.EAGAIN: "it may start no more threads or processes; raise the limit with ulimit -u",
  errno.ENOMEM: "there is no memory left",
}
_LESS_MEMORY = (
  "Lower BATCH_SIZE, TASK_FEATURE_LENGTHS or EvaluationPlan.batch_size, raise Stage.microbatches, or"
  " use more devices (MESH_MODEL, gin/hardware); promot train --dry_run shows what a recipe needs"
)


def end(error: Exception, flags: Flags | None, *, verbose: bool) -> int:
  """Says what a command failed with and gives the exit code.

  Args:
    flags: None if they could not be read.
  """
  # The reader has gone: Python flushes standard output once more at its end, and would complain.
  if isinstance(error, BrokenPipeError):  # `promot inspect ... | head`
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0
  known = error if isinstance(error, PromotError) else explained(error)
  if known is None:
    known = cluster.peer_lost(error)
  if verbose:
    traceback.print_exception(error)
  if known is not None:  # the sentence says all there is to say; a traceback is for those who ask
    log = _log(flags, error) if verbose and flags is not None and not known.of_all else ""
    return leave(say(known, log=log), alone=not known.of_all)
  log = _log(flags, error) if flags is not None else "--verbose shows it"
  shown = visible(" ".join(str(error).split())[:400])
  print(f"ERROR  {type(error).__name__}: {shown}", file=sys.stderr)
  print(f"       this is a bug or a broken installation; traceback: {log}", file=sys.stderr)
  return leave(1, alone=True)


def explained(error: BaseException) -> PromotError | None:
  """What to say about an error of the system that is no bug; None for others.

  Looks at the errors that caused it too: libraries wrap what the system refused.
  """
  link: BaseException | None = error
  # A chain of causes may be a circle.
  for _ in range(20):
    if link is None:
      return None
    found = _explained(link)
    if found is not None:
      return found
    link = link.__cause__ or link.__context__
  return None


def cannot_write(path: str | os.PathLike, reason: str) -> CannotWrite:
  """The sentence about a file or folder that the disk refused."""
  free = _free(pathlib.Path(path))
  return CannotWrite(
    f"'{os.fspath(path)}' cannot be written: {reason}{free}. Make room or give another place, then"
    " repeat the command."
  )


def _explained(error: BaseException) -> PromotError | None:
  text = str(error)
  # By numbers first; words of libraries, which change between versions, are read only without one.
  if isinstance(error, OSError) and error.errno is not None:
    return _of_system(error)
  for number in (errno.EMFILE, errno.ENFILE):  # as the loader of a library or C++ says it
    if os.strerror(number) in text:
      return _of_system(OSError(number, ""))
  if isinstance(error, MemoryError) or "can't start new thread" in text:
    need = f" ({text})" if text else ""
    return OutOfResources(f"There is no memory left for what was asked{need}. {_LESS_MEMORY}.")
  if reason := _reason_of_disk(text):
    return CannotWrite(f"The disk refused to write: {reason} ({_first_line(error)}).")
  if "RESOURCE_EXHAUSTED" in text or "ResourceExhausted" in type(error).__name__:
    return OutOfResources(f"A device is out of memory ({_first_line(error)}). {_LESS_MEMORY}.")
  if isinstance(error, ValueError) and "embedded null byte" in text:
    return ConfigError("a path has a null byte in it; write it without.")
  return None


def _reason_of_disk(text: str) -> str | None:
  """Why a disk refused, in words that libraries use; None where they do not."""
  try:
    from promot_jax.checkpoints import disk  # reads files, which may be what was refused
  except (OSError, ImportError):
    return None
  return disk.known_reason(text)


def _of_system(error: OSError) -> PromotError | None:
  reason = os.strerror(error.errno) if error.errno else str(error)
  # Of a rename it is the second one that was to be written.
  path = error.filename2 or error.filename
  name = os.fsdecode(path) if isinstance(path, (str, bytes)) else ""
  if error.errno in _SHORTAGES:
    return OutOfResources(f"The process was refused: {reason}; {_SHORTAGES[error.errno]}.")
  # The same number is said of reading and of writing; only the file's rights tell which it was.
  if error.errno in (errno.EACCES, errno.EPERM) and name and _is_unreadable(name):
    return ConfigError(f"'{name}' cannot be read: {reason}. Give yourself the right to read it.")
  if error.errno in _NOT_WRITTEN:
    return cannot_write(name or _place_of_files(), reason)
  if error.errno in _NOT_THAT_KIND and name:
    return ConfigError(f"'{name}' cannot be used: {reason}. Name another path.")
  return None


def _is_unreadable(name: str) -> bool:
  return os.path.exists(name) and not os.access(name, os.R_OK)


def _place_of_files() -> str:
  """Where a command writes, as far as its line tells: the system does not name a full disk's file."""
  for flag in ("--output", "--model_dir"):
    for position, argument in enumerate(sys.argv):
      name, equals, value = argument.partition("=")
      if name == flag:
        return value if equals else (sys.argv[position + 1 :] or ["."])[0]
  return "a file of this command"


def _free(path: pathlib.Path) -> str:
  """', 24.6 kB free' of the file system of a path."""
  try:
    from promot_jax.checkpoints import disk
  except (OSError, ImportError):  # reads files, which may be what was refused
    return ""
  for folder in (path, *path.absolute().parents):
    if folder.is_dir():
      try:
        return f", {disk.size_text(shutil.disk_usage(folder).free)} free"
      except OSError:
        return ""
  return ""


def _first_line(error: BaseException) -> str:
  return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def leave(code: int, *, alone: bool) -> int:
  """The exit code; a process that fails alone, of several, leaves at once instead.

  Otherwise it would wait at its end for the others, who wait for it in the middle of their work.
  """
  if alone and cluster.processes() > 1:
    if cluster.number() == 0:
      time.sleep(_LAST_WORDS_SECONDS)  # the others end with the process that coordinates them
    # os._exit runs nothing more, not even the flush of what was printed.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  return code


def say(error: PromotError, *, log: str = "") -> int:
  """Prints what failed and gives the exit code.

  Args:
    log: where the traceback is.
  """
  if error.of_all and cluster.number() > 0:
    return error.exit_code  # process 0 says it
  head, *rest = str(error).splitlines() or [type(error).__name__]
  # A run that was asked to stop did as it was told: that is no error.
  stopped = isinstance(error, Preempted)
  first = (
    f"stopped{visible(head).removeprefix('Stopped')}" if stopped else f"ERROR  {visible(head)}"
  )
  print(f"{_CLEARED if sys.stderr.isatty() else ''}{first}", file=sys.stderr)
  for line in rest:
    print(f"       {visible(line)}", file=sys.stderr)
  where = f"; traceback: {log}" if log else ""
  process = f", process {cluster.number()}" if cluster.number() else ""
  print(f"       (exit {error.exit_code}{process}{where})", file=sys.stderr)
  return error.exit_code


def _log(flags: Flags, error: Exception) -> str:
  """Writes the traceback below an existing model directory, else to a temporary file."""
  model_dir = getattr(flags.values, "model_dir", None)
  name = f"error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-"
  text = "".join(traceback.format_exception(error))
  folders = [pathlib.Path(model_dir) / "logs"] if model_dir and os.path.isdir(model_dir) else []
  # The full or read-only disk may be the very reason for the traceback.
  for folder in [*folders, pathlib.Path(tempfile.gettempdir())]:
    if folder in folders and folder.is_symlink():
      continue  # a link leads out of a directory that may be somebody else's
    try:
      folder.mkdir(exist_ok=True)
      # A new file of our own, never what somebody put there before.
      descriptor, path = tempfile.mkstemp(prefix=name, suffix=".txt", dir=folder)
      with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
      return path
    except OSError:
      continue
  return "nowhere (no folder can be written)"
