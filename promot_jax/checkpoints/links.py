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

PARTS = ("stages", "evaluation", "evaluation_of_parts", "features", "train", "logs")
"""Folders of a model directory that are written by parts; whatever else lies there is not looked at."""
_STEP = re.compile(r"checkpoint_\d+.*")  # its files are only read; written anew, they are renamed


def require_inside(directory: str | os.PathLike, *, whole: str | os.PathLike | None = None) -> None:
  """Refuses a model directory of which a part lies elsewhere.

  Args:
    directory: of one experiment.  It may be a link itself where the user named it.
    whole: what the user named, if that is a directory around it.

  Raises:
    ConfigError: a link leads out of it, or something in it is neither file nor folder.
  """
  named = directory if whole is None else whole
  root = pathlib.Path(os.path.realpath(named))
  # The directory itself too: of an experiment inside of a comparison it may be the link.
  for path in (os.fspath(directory), *_entries(pathlib.Path(directory))):
    # All links on the way, not the last one alone.
    target = pathlib.Path(os.path.realpath(path))
    if not target.is_relative_to(root):
      raise errors.ConfigError(
        f"{path} is a link to {target}, so that writing into {named} would change what lies there."
        " Replace the link with what it leads to, or remove it."
      )
    # A part that is not there yet is no pipe and no device.
    mode = target.stat().st_mode if target.exists() else stat.S_IFREG
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
      raise errors.ConfigError(
        f"{path} is neither a file nor a folder (a pipe or device); remove it."
      )


def _entries(root: pathlib.Path) -> Iterator[str]:
  """The parts of a directory and all in them, but the inside of checkpoints and what is behind links."""
  for part in (root / name for name in PARTS):
    yield str(part)
    for folder, folders, files in os.walk(part) if not part.is_symlink() else ():
      yield from (os.path.join(folder, name) for name in (*folders, *files))
      # In place, which is how `os.walk` is told where not to go on.
      folders[:] = [name for name in folders if not _STEP.fullmatch(name)]
