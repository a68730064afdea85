"""Entry point of `promot`: catches signals, reads the flags, imports only what the command needs.

Every failure that a user can act on is one sentence and an exit code (`promot_jax.errors`); the
traceback goes to `MODEL_DIR/logs`, and to the screen with --verbose.  Signals are caught from the first
line on, so what is imported before is as little as possible.
"""

import os
import sys
from collections.abc import Sequence

from promot_jax import signals
from promot_jax.errors import Preempted

_REPEATED = ("train", "eval", "infer")  # commands that go on where they were stopped


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command line and returns its exit code.

  Args:
    argv: without the program's name.  None: the process's own, which ends after it.
  """
  arguments = list(sys.argv[1:] if argv is None else argv)
  repeated = bool(arguments) and arguments[0] in _REPEATED
  # A launcher repeats what ends with 75; of other commands nothing is left to go on with.
  code_of_signal = Preempted.exit_code if repeated else None
  with signals.catch(report=None, nothing_to_save=True, code=code_of_signal) as stop:
    code = _run(arguments, stop if argv is None else None)
    if argv is None:
      stop.ended = code
  return code


def _run(arguments: list[str], stop: signals.Stop | None) -> int:
  """Runs the command, in a process of its own where a lost peer may end it.

  Args:
    stop: of a process that is all this command's.
  """
  from promot_jax.cli import failures
  from promot_jax.cli import flags as flags_module

  flags = None
  try:
    flags = flags_module.parse(arguments)

    import importlib

    from promot_jax.cli import cluster, supervision

    # Only where a lost peer can end this process: a process that waits costs a second Python.
    if stop is not None and cluster.is_named(flags.values):
      if not supervision.is_worker():
        stop.waits = True
        return supervision.run(arguments, stop)
      supervision.follow_parent()
    # Before anything imports JAX or TensorFlow, which read it then.
    set_environment(flags.values)

    from promot_jax import task_package
    from promot_jax.cli import allocator, screen, task_modules

    screen.show_warnings_so()
    allocator.keep_memory()
    # Before the user's modules are imported, one of which may be called tasks.
    task_package.bind()
    task_modules.load(flags.values)
    command = importlib.import_module(f"promot_jax.cli.{flags.command}")
    code = command.run(flags) or 0
    sys.stdout.flush()  # what a closed pipe refuses is an error here, not at the end of the process
    return code
  # Bugs too: their tracebacks go to a file, and the screen has one sentence.
  except Exception as error:
    return failures.end(error, flags, verbose="--verbose" in arguments)


def set_environment(values) -> None:
  """Defaults for libraries that read the environment when they are imported."""
  import pathlib

  from promot_jax import cache_folders

  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")
  if getattr(values, "tfds_data_dir", None):
    os.environ["TFDS_DATA_DIR"] = values.tfds_data_dir
  chosen = "JAX_COMPILATION_CACHE_DIR" in os.environ
  if not chosen:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache_folders.default("xla"))
    # JAX's 1 s leaves out most programs of a small model.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
  cache = os.environ["JAX_COMPILATION_CACHE_DIR"]
  if cache and "://" not in cache:
    _open_cache(pathlib.Path(cache).expanduser(), chosen=chosen)


def _open_cache(folder, *, chosen: bool) -> None:
  """Compiled programs are run unseen: whoever can write this folder (a path) can run code as us."""
  from promot_jax import cache_folders
  from promot_jax.errors import ConfigError

  name = "JAX_COMPILATION_CACHE_DIR"
  os.environ[name] = str(folder)
  try:
    cache_folders.make_private(folder, what="compilation cache", variable=name)
  except OSError:
    os.environ[name] = ""  # a read-only home: compile without a cache
  except ConfigError as error:
    if chosen:
      raise
    os.environ[name] = ""
    print(f"no compilation cache is used: {error}", file=sys.stderr)


if __name__ == "__main__":
  sys.exit(main())
