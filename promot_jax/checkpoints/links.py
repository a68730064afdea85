"""Links in a model directory, which lead what is written there to other places.

A directory that was unpacked from somebody's archive may have a link as any of its files and folders: as
the lease, which is emptied when it is taken, as a metrics file, which is added to, as a stage, whose
older steps are deleted.  So nothing is written into a directory before it was looked through.
"""

import os
import pathlib
import re
import stat
from collections.abc import Iterator

from promot_jax import errors

_STEP = re.compile(r"checkpoint_\d+.*")  # its files are only read; written anew, they are renamed


def require_inside(directory: str | os.PathLike) -> None:
  """Refuses a model directory of which a part lies elsewhere.

  Args:
    directory: may be a link itself: it was named by the user.

  Raises:
    ConfigError: a link leads out of it, or something in it is neither file nor folder.
  """
  root = pathlib.Path(os.path.realpath(directory))
  for path in _entries(root):
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
      target = pathlib.Path(os.path.realpath(path))
      if not target.is_relative_to(root):
        raise errors.ConfigError(
          f"{path} is a link to {target}, so that writing into {directory} would change what lies there."
          " Replace the link with what it leads to, or remove it."
        )
    elif not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
      raise errors.ConfigError(
        f"{path} is neither a file nor a folder (a pipe or device); remove it."
      )


def _entries(root: pathlib.Path) -> Iterator[str]:
  """Everything at and below a folder, but the inside of checkpoints and what is behind links."""
  for folder, folders, files in os.walk(root):
    yield from (os.path.join(folder, name) for name in (*folders, *files))
    folders[:] = [name for name in folders if not _STEP.fullmatch(name)]
