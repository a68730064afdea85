"""Where gin files are, and which files a name means.

`NAME_micro.gin` means NAME.gin followed by our micro.gin, where there is no file of that name: every
recipe has a small form without a second file that could drift from the first.
"""

import difflib
import os
import pathlib
import stat
from collections.abc import Sequence

from promot_jax.errors import ConfigError

MICRO = "micro.gin"
_SMALL = "_micro.gin"
_HARDWARE = "hardware"
_LARGEST = 4 * 2**20  # bytes of one file


def recipe_folders() -> list[str]:
  """Where our own recipes are: `gin/` of a checkout, or the installed copy."""
  package = pathlib.Path(__file__).resolve().parent.parent
  # `models` tells them from folders of these names that are not ours.
  candidates = [package.parent / "gin", package / "recipes"]
  return [str(folder) for folder in candidates if (folder / "models").is_dir()]


def find(name: str, folders: Sequence[str], *, place: str = "") -> tuple[str, ...]:
  """Paths of the files that a name means, as given or below one of `folders`, in reading order.

  Raises:
    ConfigError: no such file, with near names; or a folder, a pipe, a device.
  """
  found = _path(name, folders, place)
  if found:
    return (found,)
  # Only where no file has the name: a small form that a user wrote is taken as it is.
  if name.endswith(_SMALL):
    recipe = _path(name.removesuffix(_SMALL) + ".gin", folders, place)
    micro = _path(MICRO, recipe_folders(), place)
    if recipe and micro and os.path.basename(recipe) != MICRO:
      return recipe, micro
  start = f"{place}: " if place else ""
  close = difflib.get_close_matches(name, _known(folders, place), 2, cutoff=0.5)
  hint = f" Did you mean {' or '.join(repr(n) for n in close)}?" if close else ""
  raise ConfigError(
    f"{start}gin file '{name}' was not found.{hint} "
    f"Looked in: {', '.join(f or '.' for f in dict.fromkeys(['.', *folders]))}."
  )


def named_below(folder: str, search_paths: str) -> list[str]:
  """Names of the files in a folder below the search paths (joined by commas) and our own recipes."""
  places = [*search_paths.split(","), *recipe_folders()]
  return sorted({path.stem for each in places for path in pathlib.Path(each, folder).glob("*.gin")})


def is_shared(path: str) -> bool:
  """Whether a file comes with the package for inclusion or as an overlay, and is no recipe."""
  return any(parts[:-1] or parts == (MICRO,) for parts in _parts_in_recipes(path))


def is_hardware(path: str) -> bool:
  """Whether a file is one of ours that say where a recipe runs."""
  return any(parts[0] == _HARDWARE and len(parts) == 2 for parts in _parts_in_recipes(path))


def is_micro(path: str) -> bool:
  """Whether a file is our micro.gin."""
  return (MICRO,) in _parts_in_recipes(path)


def file_text(path: str) -> str:
  """Content of a gin file.  Raises ConfigError: it cannot be read, is no UTF-8, or is too large."""
  try:
    # Before it is read: the name may be that of a checkpoint.
    size = os.path.getsize(path)
    if size > _LARGEST:
      raise ConfigError(
        f"gin file '{path}' has {size:,} bytes, which no configuration has (at most {_LARGEST:,}); "
        "is it the right file?"
      )
    # With or without a byte order mark, which some editors write and gin would take for a name.
    return pathlib.Path(path).read_text(encoding="utf-8-sig")
  except OSError as error:
    raise ConfigError(f"gin file '{path}' cannot be read: {error.strerror}.") from None
  except UnicodeDecodeError as error:
    line = error.object.count(b"\n", 0, error.start) + 1
    raise ConfigError(
      f"gin file '{path}' is no UTF-8 text: line {line} has the byte 0x{error.object[error.start]:02x}. "
      "Save it as UTF-8."
    ) from None


def _path(name: str, folders: Sequence[str], place: str) -> str | None:
  start = f"{place}: " if place else ""
  for folder in ["", *folders]:
    path = os.path.expanduser(os.path.join(folder, name))
    try:
      mode = os.stat(path).st_mode
    except (OSError, ValueError):  # ValueError: a NUL byte in the name
      continue
    if stat.S_ISREG(mode):
      return os.path.normpath(path)
    # A pipe would be waited for, and can be read once only, while files are read twice.
    if not stat.S_ISDIR(mode) or folder == "":
      kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or device"
      raise ConfigError(f"{start}gin file '{name}' is {kind}; name a file.")
  return None


def _known(folders: Sequence[str], place: str) -> list[str]:
  """Names that could have been meant."""
  known = {
    path.relative_to(folder).as_posix()
    for folder in folders
    if os.path.abspath(folder) != os.path.abspath(".") or not place
    for path in pathlib.Path(folder).glob("**/*.gin")
    if len(path.relative_to(folder).parts) < 4
  }
  recipes = {name for name in known if "/" not in name and not name.endswith(_SMALL)} - {MICRO}
  return sorted(known | {name.removesuffix(".gin") + _SMALL for name in recipes})


def _parts_in_recipes(path: str) -> list[tuple[str, ...]]:
  """The path below each folder of ours that it lies in."""
  file = pathlib.Path(path).resolve()
  folders = [pathlib.Path(folder).resolve() for folder in recipe_folders()]
  return [file.relative_to(folder).parts for folder in folders if folder in file.parents]
