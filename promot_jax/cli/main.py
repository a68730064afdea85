"""Entry point of `promot`: reads the flags, then imports only what the command needs.

Every failure that a user can act on is one sentence and an exit code (`promot_jax.errors`); the
traceback goes to `MODEL_DIR/logs`, and to the screen with --verbose.
"""

import importlib
import os
import pathlib
import stat
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence

from promot_jax.cli import allocator, cluster
from promot_jax.cli import flags as flags_module
from promot_jax.errors import ConfigError, PromotError

_LAST_WORDS_SECONDS = 3


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command line and returns its exit code."""
  arguments = list(sys.argv[1:] if argv is None else argv)
  verbose = "--verbose" in arguments
  try:
    flags = flags_module.parse(arguments)
  except PromotError as error:
    return _fail(error, verbose=verbose)
  try:
    set_environment(flags.values)
    allocator.keep_memory()
    command = importlib.import_module(f"promot_jax.cli.{flags.command}")
    return command.run(flags) or 0
  except PromotError as error:
    return _end(_fail(error, verbose=verbose, log=_log(flags, error)), alone=not error.of_all)
  except KeyboardInterrupt:
    print("\nstopped. Run the same command to go on.", file=sys.stderr)
    return _end(130, alone=True)
  except BrokenPipeError:  # `promot inspect ... | head`
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
  except Exception as error:
    log = _log(flags, error)
    if verbose:
      traceback.print_exc()
    lost = cluster.peer_lost(error)
    if lost is not None:
      return _end(_fail(lost, verbose=False, log=log), alone=True)
    shown = " ".join(str(error).split())[:400]
    print(f"ERROR  {type(error).__name__}: {shown}", file=sys.stderr)
    print(f"       this is a bug or a broken installation; traceback: {log}", file=sys.stderr)
    return _end(1, alone=True)


def _end(code: int, *, alone: bool) -> int:
  """The exit code; a process that fails alone, of several, leaves at once instead.

  Otherwise it would wait at its end for the others, who wait for it in the middle of their work.
  """
  if alone and cluster.processes() > 1:
    if cluster.number() == 0:
      time.sleep(_LAST_WORDS_SECONDS)  # the others end with the process that coordinates them
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  return code


def set_environment(values) -> None:
  """Defaults for libraries that read the environment when they are imported."""
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")
  if getattr(values, "tfds_data_dir", None):
    os.environ["TFDS_DATA_DIR"] = values.tfds_data_dir
  if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    base = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(base / "promot_jax" / "xla")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
  cache = os.environ["JAX_COMPILATION_CACHE_DIR"]
  if cache and "://" not in cache:
    _check_cache(pathlib.Path(cache))


def _check_cache(folder: pathlib.Path) -> None:
  """Compiled programs are run unseen: whoever can write this folder can run code as us."""
  try:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
  except OSError:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = ""  # a read-only home: compile without a cache
    return
  mode = folder.stat().st_mode
  if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
    raise ConfigError(
      f"the compilation cache {folder} is writable by everybody, so anybody could make this "
      f"process run code. Run chmod go-w {folder}, or set JAX_COMPILATION_CACHE_DIR."
    )


def _fail(error: PromotError, *, verbose: bool, log: str = "") -> int:
  if error.of_all and cluster.number() > 0:
    return error.exit_code  # process 0 says it
  if verbose and error.__traceback__ is not None:
    traceback.print_exception(error)
  head, *rest = str(error).splitlines() or [type(error).__name__]
  print(f"ERROR  {head}", file=sys.stderr)
  for line in rest:
    print(f"       {line}", file=sys.stderr)
  where = f"; traceback: {log}" if log else ""
  process = f", process {cluster.number()}" if cluster.number() else ""
  print(f"       (exit {error.exit_code}{process}{where})", file=sys.stderr)
  return error.exit_code


def _log(flags: flags_module.Flags, error: BaseException) -> str:
  """Writes the traceback below an existing model directory, else to a temporary file."""
  if isinstance(error, ConfigError) or (getattr(error, "of_all", False) and cluster.number()):
    return ""  # says all there is to say, or process 0 does, and nothing may be written
  model_dir = getattr(flags.values, "model_dir", None)
  name = f"error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
  text = "".join(traceback.format_exception(error))
  folders = [pathlib.Path(model_dir) / "logs"] if model_dir and os.path.isdir(model_dir) else []
  for folder in [*folders, pathlib.Path(tempfile.gettempdir())]:
    try:
      folder.mkdir(exist_ok=True)
      path = folder / name
      path.write_text(text)
      return str(path)
    except OSError:
      continue
  return "nowhere (no folder can be written)"


if __name__ == "__main__":
  sys.exit(main())
