"""The command line: the only Python of this project that imports gin or prints."""

import re
import sys


def _working_folder_last() -> None:
  """`python -m` puts the working folder before everything that is installed: a gin.py or json.py there
  would be run in place of the library.  It stays where packages of the user's own are found, at the end.
  """
  # -m NAME, also behind other letters (-um) and options, or without a blank.
  given = " ".join(sys.orig_argv[1:6])
  as_module = re.search(r"(^| )-\w*m ?promot_jax\.", given)
  if as_module and not sys.flags.safe_path and sys.path:
    sys.path.append(sys.path.pop(0))


_working_folder_last()
