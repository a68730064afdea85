"""The command line: the only Python of this project that imports gin or prints."""

import re
import sys


def _working_folder_last() -> None:
  """`python -m` puts the working folder before everything that is installed: a gin.py or json.py there
  would be run in place of the library.  It stays, at the end, where packages of the user's own are asked
  for (--gin_allow_imports).  Else it goes: JAX runs what lies in a folder `jax_plugins`, wherever it is
  found.
  """
  # -m NAME, also behind other letters (-um) and options, or without a blank.
  given = " ".join(sys.orig_argv[1:6])
  as_module = re.search(r"(^| )-\w*m ?promot_jax\.", given)
  if as_module and not sys.flags.safe_path and sys.path:
    folder = sys.path.pop(0)
    if any(argument.startswith("--gin_allow_imports") for argument in sys.orig_argv):
      sys.path.append(folder)


_working_folder_last()
