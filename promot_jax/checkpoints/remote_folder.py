"""A folder in a bucket, with the few methods of `pathlib.Path` that reading a checkpoint needs.

Through TensorStore, which reads gs:// and s3:// itself (credentials are those of the machine), and
file://, which the tests use.
"""

import pathlib
from typing import Any

from promot_jax import errors


class RemoteFolder:
  """A file or folder below a URL such as 'gs://bucket/t5x/checkpoint_1000000'."""

  def __init__(self, url: str) -> None:
    self.url = url.rstrip("/")

  def __truediv__(self, name: str) -> "RemoteFolder":
    return RemoteFolder(f"{self.url}/{name}")

  def __str__(self) -> str:
    return self.url

  @property
  def name(self) -> str:
    """The last part."""
    return self.url.rsplit("/", 1)[-1]

  def is_file(self) -> bool:
    """Whether there is an object of exactly this name.  Raises ConfigError if nobody can tell."""
    return self._read() is not None

  def is_dir(self) -> bool:
    """Whether any object lies below this name.  Raises ConfigError if nobody can tell."""
    return bool(self._keys())

  def iterdir(self) -> list["RemoteFolder"]:
    """Files and folders directly below this one.  Lists all objects below it: buckets have no tree."""
    # From the keys of all objects below: a bucket knows names with slashes and no folders.
    return [self / name for name in sorted({key.split("/")[0] for key in self._keys()})]

  def read_bytes(self) -> bytes:
    """The content.  Raises FileNotFoundError."""
    content = self._read()
    if content is None:
      raise FileNotFoundError(self.url)
    return content

  def read_text(self) -> str:
    """The content as UTF-8.  Raises FileNotFoundError."""
    return self.read_bytes().decode()

  def _read(self) -> bytes | None:
    parent, name = self.url.rsplit("/", 1)
    # The parent is opened, since a store of keys has no key that is itself.
    result = self._try(parent, lambda store: store.read(name).result())
    return bytes(result.value) if result.state == "value" else None

  def _keys(self) -> list[str]:
    return [key.decode() for key in self._try(self.url, lambda store: store.list().result())]

  def _try(self, url: str, use: Any) -> Any:
    import tensorstore

    try:
      return use(tensorstore.KvStore.open(url + "/").result())
    except (ValueError, OSError) as error:
      # Its first line without the place in TensorStore's source, which follows in brackets.
      reason = str(error).split(" [", 1)[0].splitlines()[0]
      raise errors.ConfigError(
        f"'{self.url}' cannot be read ({reason}). Check the path and this machine's credentials, or"
        " copy the folder here."
      ) from None


def folder(path: Any) -> pathlib.Path | RemoteFolder:
  """The folder that a path or URL names."""
  if isinstance(path, RemoteFolder):
    return path
  return RemoteFolder(str(path)) if "://" in str(path) else pathlib.Path(path)


def kvstore(place: pathlib.Path | RemoteFolder) -> dict[str, Any]:
  """TensorStore's description of a folder."""
  if isinstance(place, pathlib.Path):
    return {"driver": "file", "path": f"{place.absolute()}/"}
  import tensorstore

  return tensorstore.KvStore.Spec(f"{place}/").to_json()
