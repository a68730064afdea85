"""Folders that keep what is trusted later without a second look, and who else could write there.

Compiled programs are run unseen, and cached examples, weights and tokenizers decide over results.  So
such a folder must be private in the way in which ssh asks it of its files: it belongs to us (or to the
system's administrator) and nobody else may write it, sticky or not; the folders above it and links on
the way to it cannot be exchanged by others, either.
"""

import os
import pathlib
import stat
from collections.abc import Iterator

from promot_jax.errors import ConfigError

_LINKS = 40  # on the way to a folder


def default(name: str) -> pathlib.Path:
  """`~/.cache/promot_jax/NAME`, or below XDG_CACHE_HOME."""
  base = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "")).expanduser()
  if not base.is_absolute():  # as its specification says
    base = pathlib.Path.home() / ".cache"
  return base / "promot_jax" / name


def make_private(folder: pathlib.Path, *, what: str, variable: str = "XDG_CACHE_HOME") -> None:
  """Makes the folder where there is none, and checks that nobody else can write it.

  Args:
    what: for the message, such as 'compilation cache'.
    variable: of the environment, that names another folder.

  Raises:
    ConfigError: somebody else can write there; says who, and what to do.
    OSError: it cannot be made.
  """
  # One by one from the top: mkdir(parents=True) would give the mode to the last one only.
  missing = [folder, *folder.parents]
  for place in reversed([place for place in missing if not os.path.lexists(place)]):
    place.mkdir(mode=0o700, exist_ok=True)
  problem = weakness(folder)
  if problem:
    raise ConfigError(
      f"the {what} {folder} could be filled by somebody else: {problem}, or set {variable} to a folder of "
      "your own."
    )


def weakness(folder: pathlib.Path) -> str:
  """Why others could change what is read from a folder, and the command against it; '' if they cannot."""
  # Windows has neither owners of this kind nor these modes.
  if not hasattr(os, "getuid"):
    return ""
  places = list(_way(folder))
  for number, (place, status) in enumerate(places):
    last = number == len(places) - 1
    if status.st_uid not in (os.getuid(), 0) and not (_is_outside(status.st_uid) and not last):
      kind = "the link" if stat.S_ISLNK(status.st_mode) else ""
      return f"{kind} {place} belongs to user {_user(status.st_uid)}. Run as that user".strip()
    # A link has no mode of its own, and what it leads to is in the list as well.
    if stat.S_ISLNK(status.st_mode):
      continue
    # In a sticky folder such as /tmp others can add, but not exchange what is ours: enough on the
    # way, not at its end, where what they add would be read.
    by_all = bool(status.st_mode & stat.S_IWOTH)
    by_group = bool(status.st_mode & stat.S_IWGRP) and not _is_own_group(status.st_gid)
    if (by_all or by_group) and (last or not status.st_mode & stat.S_ISVTX):
      who = "everybody" if by_all else f"the group {_group(status.st_gid)}"
      return f"{place} is writable by {who}. Run chmod {'go-w' if by_all else 'g-w'} {place}"
  return ""


def _way(folder: pathlib.Path) -> Iterator[tuple[str, os.stat_result]]:
  """Every folder and link that is passed from / to where a path leads, in order."""
  # Step by step: resolving the path at once would hide the links, which can be exchanged, too.
  current, links = "/", 0
  left = list(reversed(pathlib.Path(os.path.abspath(folder)).parts[1:]))
  yield current, os.lstat(current)
  while left:
    part = left.pop()
    if part == "..":
      current = os.path.dirname(current)
      continue
    place = os.path.join(current, part)
    status = os.lstat(place)
    yield place, status
    if not stat.S_ISLNK(status.st_mode):
      current = place
      continue
    links += 1
    # As the system itself does, which ends a circle of links in the same way.
    if links > _LINKS:
      raise OSError(f"too many links on the way to {folder}")
    target = pathlib.PurePosixPath(os.readlink(place))
    if target.is_absolute():
      current = "/"
    left += reversed(target.parts[1:] if target.is_absolute() else target.parts)
  if links:
    yield current, os.lstat(current)  # also where a link ends in '..'


def _is_outside(user: int) -> bool:
  """Whether a user is shown in place of all who have no number in this container."""
  try:
    overflow = int(pathlib.Path("/proc/sys/kernel/overflowuid").read_text())
    mapped = pathlib.Path("/proc/self/uid_map").read_text().split()
  except (OSError, ValueError):
    return False
  return user == overflow and mapped != ["0", "0", "4294967295"]


def _is_own_group(group: int) -> bool:
  """Whether nobody else is in a group: many systems give each user one of the same name."""
  # Here, as Windows has neither module.
  import grp
  import pwd

  try:
    found, own = grp.getgrgid(group), pwd.getpwuid(os.getuid())
  except KeyError:
    return False
  return group == own.pw_gid and found.gr_name == own.pw_name and set(found.gr_mem) <= {own.pw_name}


def _user(number: int) -> str:
  import pwd

  try:
    return pwd.getpwuid(number).pw_name
  except KeyError:
    return str(number)


def _group(number: int) -> str:
  import grp

  try:
    return grp.getgrgid(number).gr_name
  except KeyError:
    return str(number)
