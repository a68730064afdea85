"""A JSON object of a checkpoint, from a file that may be damaged or made to do harm."""

import json
import pathlib
from typing import Any

from promot_jax import errors


def read_object(file: pathlib.Path) -> dict[str, Any]:
  """The object in a file.

  Raises:
    DamagedCheckpoint: the file cannot be read, or holds something else.
    FileNotFoundError: there is none.
  """
  try:
    content = json.loads(file.read_text(encoding="utf-8"))
  except FileNotFoundError:
    # Whether a missing file is an error, the caller knows: some files may be absent.
    raise
  except (OSError, ValueError) as error:
    raise errors.DamagedCheckpoint(f"'{file}' cannot be read: {error}. Copy it again.") from None
  # No fault of the disk: a few kB of brackets lead here.
  except (RecursionError, MemoryError):
    raise errors.DamagedCheckpoint(
      f"'{file}' is nested too deeply, or too large, to be read as JSON. Copy it again."
    ) from None
  if not isinstance(content, dict):
    raise errors.DamagedCheckpoint(f"'{file}' is no JSON object. Copy it again.")
  return content
