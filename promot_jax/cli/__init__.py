"""The command line: the only Python of this project that imports gin or prints."""

import sys


def _working_folder_last() -> None:
  """`python -m` puts the working folder before everything that is installed: a gin.py or json.py there
  would be run in place of the library.  It stays where packages of the user's own are found, at the end.
  """
  flags = sys.orig_argv[: sys.orig_argv.index("-m") + 2] if "-m" in sys.orig_argv else [""]
  if flags[-1].startswith("promot_jax.") and not sys.flags.safe_path and sys.path:
    sys.path.append(sys.path.pop(0))


_working_folder_last()
