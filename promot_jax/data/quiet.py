"""Keeps what TensorFlow's C++ writes when it is imported off the screen."""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

# Information and warnings of absl's and TensorFlow's loggers; errors (E, F) are shown.
_NOTE = re.compile(rb"WARNING: All log messages before absl|[IW]\d{4} [\d:. ]+\d+ [\w.]+:\d+\]")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Keeps the C++ notes that TensorFlow writes when it is imported off the screen.

  They go to file descriptor 2 and obey no setting.  If reading fails, what was written is shown.
  """
  # What Python has not written yet must not come out behind it, or be hidden.
  sys.stderr.flush()
  shown = os.dup(2)
  with tempfile.TemporaryFile() as hidden:
    # The descriptor itself, for C++ knows nothing of `sys.stderr`.
    os.dup2(hidden.fileno(), 2)
    try:
      yield
    except BaseException:
      hidden.seek(0)
      os.write(shown, b"".join(line for line in hidden if not _NOTE.match(line)))
      raise
    finally:
      os.dup2(shown, 2)
      os.close(shown)
