"""Where a named checkpoint lies: brings folders of hubs and buckets here, and gives local paths.

A folder from elsewhere is copied once into a cache (`~/.cache/promot_jax/checkpoints`, or below
XDG_CACHE_HOME) and is complete or absent there.  Only files that are data are copied: JSON,
safetensors and vocabularies.  Nothing is ever executed.
"""

import contextlib
import hashlib
import os
import pathlib
import re
import shutil

from promot_jax import cache_folders, errors
from promot_jax.checkpoints import disk

PATTERNS = ("*.json", "*.safetensors", "*.model", "*.txt")
"""Files that are fetched of a Hugging Face folder."""
SCHEMES = (
  *("gs", "gcs", "s3", "s3a", "az", "abfs", "abfss", "hdfs", "webhdfs"),
  *("http", "https", "hf", "file", "memory"),
)
"""Of the URLs that are fetched: stores of files.  fsspec has others, which chain or run programs."""
_HUB_NAME = re.compile(r"(?!.*\.\.)[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")


def is_remote(path: str) -> bool:
  """Whether a path is a URL (gs://, s3://, memory://, ...)."""
  return "://" in path


def fetch_hf(text: str) -> pathlib.Path:
  """The local folder of a Hugging Face checkpoint.

  Args:
    text: a local folder or file, a URL of a folder that fsspec knows, or a name of the hub with or
      without a revision ('google/t5-v1_1-small@main').  `hf:` or `local:` in front is allowed.

  Raises:
    ConfigError: it is none of these, or cannot be fetched; says what to do without a network.
  """
  name = text.removeprefix("hf:")
  # What is said to be local is never looked for elsewhere.
  if name.startswith("local:"):
    return _existing(name.removeprefix("local:"))
  if is_remote(name):
    return _fetch_url(name)
  path = pathlib.Path(name)
  # A folder of this machine counts before a model of the hub with the same name.
  if path.exists() or not text.startswith("hf:"):
    return _existing(name)
  repository, _, revision = name.partition("@")
  # A name of the hub becomes a folder of its cache, so that it must not lead out of it.
  if not _HUB_NAME.fullmatch(name) or name.startswith((".", "/")):
    raise errors.ConfigError(
      f"'{text}' is neither a folder on this machine nor a name of the hub, such as"
      " hf:google/t5-v1_1-small or hf:google/t5-v1_1-small@REVISION."
    )
  return _fetch_hub(repository, revision or None)


def cache_folder() -> pathlib.Path:
  """Where copies of remote checkpoints are kept."""
  return cache_folders.default("checkpoints")


def _existing(name: str) -> pathlib.Path:
  path = pathlib.Path(name).expanduser()
  if not path.exists():
    raise errors.ConfigError(
      f"'{name}' does not exist on this machine; give a folder that does, or hf:NAME for a model of"
      " the hub."
    )
  return path


def _fetch_hub(repository: str, revision: str | None) -> pathlib.Path:
  try:
    import huggingface_hub
  except ImportError:
    raise errors.ConfigError(
      f"hf:{repository} needs the huggingface_hub package: pip install huggingface_hub, or give a"
      " local folder."
    ) from None
  shown = f"{repository}@{revision}" if revision else repository
  try:
    # Data only: a model's own code would be fetched as well otherwise.
    folder = huggingface_hub.snapshot_download(
      repository, revision=revision, allow_patterns=list(PATTERNS)
    )
  except Exception as error:  # of the hub, of its http library, of the network: no common base
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    at = f" --revision {revision}" if revision else ""
    raise errors.ConfigError(
      f"hf:{shown} could not be fetched ({type(error).__name__}: {reason}). Check the name, or on a"
      f" machine with a network run 'hf download {repository}{at} --local-dir DIR', copy DIR here and"
      " pass hf:DIR."
    ) from None
  return pathlib.Path(folder)


def _fetch_url(url: str) -> pathlib.Path:
  import fsspec

  scheme = url.partition("://")[0]
  if scheme not in SCHEMES or "::" in url:  # a configuration of somebody else's may name it
    raise errors.ConfigError(
      f"'{url}' is not of a kind that is fetched ({', '.join(f'{each}://' for each in SCHEMES)}); other "
      "drivers of fsspec do more than read files. Copy the folder here and pass hf:DIR."
    )
  try:
    system, root = fsspec.core.url_to_fs(url.rstrip("/"))
    # The names in the folder itself; nothing that lies deeper is read.
    found = {
      info["name"].rsplit("/", 1)[-1]: info
      for info in system.ls(root, detail=True)
      if info["type"] == "file"
    }
  except (ImportError, ValueError) as error:
    raise errors.ConfigError(
      f"'{url}' cannot be opened: {error}. Install the fsspec driver it names (gs:// needs pip install"
      " gcsfs, s3:// s3fs), or copy the folder here and pass hf:DIR."
    ) from None
  except Exception as error:  # of the store's driver: missing credentials have no common base
    raise _unread(url, "listed", error) from None
  wanted = {
    name: info
    for name, info in found.items()
    if any(pathlib.PurePath(name).match(pattern) for pattern in PATTERNS)
  }
  if not wanted:
    raise errors.ConfigError(
      f"'{url}' has no {', '.join(PATTERNS)} files; give the folder that save_pretrained wrote."
    )
  # Another version of a file has another fingerprint, and so a folder of its own.
  try:
    prints = sorted(f"{name} {system.ukey(info['name'])}" for name, info in wanted.items())
  except Exception as error:
    raise _unread(url, "looked at", error) from None
  key = hashlib.sha256("\n".join([url, *prints]).encode()).hexdigest()[:16]
  # A cache that cannot be made private is refused; one that is only full may have the copy already.
  with contextlib.suppress(OSError):  # said below, where something must be written
    cache_folders.make_private(cache_folder(), what="cache of checkpoints")
  target = cache_folder() / f"{pathlib.PurePath(root).name or 'bucket'}-{key}"
  if target.is_dir():
    return target
  temporary = target.with_name(f"{target.name}.tmp-{os.getpid()}")
  try:
    # Into a folder of its own, so that nobody finds a part of a model.
    disk.remove_leftover(temporary)
    temporary.mkdir(parents=True)
    for name, info in wanted.items():
      system.get_file(info["name"], str(temporary / name))
    # One rename: a folder of the cache is complete or not there.
    temporary.rename(target)
  except OSError as error:
    if target.is_dir():  # another process was faster
      return target
    raise errors.ConfigError(
      f"'{url}' could not be copied to {target} ({error}). Free some space, or set XDG_CACHE_HOME."
    ) from None
  except Exception as error:
    raise _unread(url, "read", error) from None
  finally:
    shutil.rmtree(temporary, ignore_errors=True)
  return target


def _unread(url: str, what: str, error: Exception) -> errors.ConfigError:
  return errors.ConfigError(
    f"'{url}' cannot be {what} ({type(error).__name__}: {error}). Check the path and your"
    " credentials, or copy the folder here and pass hf:DIR."
  )
