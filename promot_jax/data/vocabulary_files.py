"""Where the files of a vocabulary lie on this machine, fetched where they are not.

T5's and mT5's SentencePiece models are public.  A file named gs://... is fetched once over HTTPS
into the user's cache; `PROMOT_T5_VOCABULARY` and `PROMOT_MT5_VOCABULARY` name local copies instead.
A tokenizer's folder may be a name on the Hugging Face hub.
"""

import functools
import http.client
import os
import pathlib
import re
import tempfile
import urllib.error
import urllib.parse
import urllib.request

from promot_jax import cache_folders, errors

FILES = {
  "t5": "gs://t5-data/vocabs/cc_all.32000.100extra/sentencepiece.model",
  "mt5": "gs://t5-data/vocabs/mc4.250000.100extra/sentencepiece.model",
}
# What is read of a tokenizer's folder; the SentencePiece models only where there is no
# tokenizer.json, as in the hub's T5 1.1 and mT5.
TOKENIZER = "tokenizer.json"
DESCRIPTIONS = ("tokenizer_config.json", "special_tokens_map.json")
SENTENCEPIECE = ("spiece.model", "tokenizer.model", "sentencepiece.bpe.model")
# No name may lead out of the cache in which the copy is kept.
_HUB_NAME = re.compile(r"(?!.*\.\.)[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")


def path(name: str) -> str:
  """Where the file of vocabulary `name` ('t5', 'mt5') is: the environment's word, or gs://."""
  return os.environ.get(variable(name)) or FILES[name]


def variable(name: str) -> str:
  """Environment variable that overrides the path of vocabulary `name`."""
  return f"PROMOT_{name.upper()}_VOCABULARY"


def local_copy(file: str) -> pathlib.Path:
  """Local path of a vocabulary file; a gs:// file is fetched into the cache the first time.

  Raises:
    ConfigError: the file is absent or cannot be fetched.
  """
  if not file.startswith("gs://"):
    local = pathlib.Path(file).expanduser()
    if not local.is_file():
      raise errors.ConfigError(f"vocabulary file {file} does not exist. {_advice(file)}")
    return local
  local = cached(file)
  # A cache that others could write would let them choose our token ids.
  try:
    cache_folders.make_private(local.parent, what="cache of vocabularies")
  except OSError as error:
    # A home that is read-only may still have the copy.
    if not local.is_file():
      raise errors.ConfigError(
        f"vocabulary file {file} cannot be kept in {local.parent}: {error.strerror}. {_advice(file)}"
      ) from None
  if not local.is_file():
    name = urllib.parse.quote(file.removeprefix("gs://"))
    _fetch(f"https://storage.googleapis.com/{name}", local, file)
  return local


def cached(file: str) -> pathlib.Path:
  """Where the copy of a gs:// file lies, or will lie once it is fetched.

  Raises:
    ConfigError: the name would lead elsewhere; it may come from somebody else's configuration.
  """
  # Every part, for '..' anywhere leads out.
  parts = file.removeprefix("gs://").split("/")
  if len(parts) < 2 or any(part in ("", ".", "..") or "\0" in part for part in parts):
    raise errors.ConfigError(
      f"vocabulary file {file} is no name of a file in a bucket: gs://BUCKET/FOLDER/FILE, without empty"
      " parts, '.' and '..'."
    )
  return cache_folders.default("vocabularies").joinpath(*parts)


def is_hub_name(name: str) -> bool:
  """Whether a tokenizer's name may be one on the Hugging Face hub."""
  return _HUB_NAME.fullmatch(name) is not None


def tokenizer_folder(name: str) -> pathlib.Path:
  """Local folder of a Hugging Face tokenizer.

  Args:
    name: a folder, its tokenizer.json, or a name on the hub with an optional '@revision'.

  Raises:
    ConfigError: there is no such folder, and the hub does not give it.
  """
  local = pathlib.Path(name).expanduser()
  if local.is_file():
    return local.parent
  if local.is_dir():
    return local
  # A path that is missing is no name of the hub, and must not be asked for there.
  if not is_hub_name(name):
    raise errors.ConfigError(
      f"tokenizer folder {name} does not exist; give the folder that holds its {TOKENIZER}."
    )
  return _from_hub(name)


@functools.cache  # asked for each split, and each time the hub would be asked for its newest commit
def _from_hub(name: str) -> pathlib.Path:
  import huggingface_hub

  repository, _, revision = name.partition("@")
  try:
    found = huggingface_hub.snapshot_download(
      repository,
      revision=revision or None,
      allow_patterns=[TOKENIZER, *DESCRIPTIONS, *SENTENCEPIECE],
    )
  except Exception as cause:  # the hub's own errors, those of its HTTP library, and OSError
    raise errors.ConfigError(
      f"tokenizer {name} is no folder here, and the Hugging Face hub did not give it"
      f" ({type(cause).__name__}). Check the name, or copy its files to a folder and name that."
    ) from cause
  return pathlib.Path(found)


def tokenizer_files(folder: pathlib.Path) -> list[pathlib.Path]:
  """The files of a tokenizer's folder that decide over its ids: the tokenizer, then descriptions.

  Raises:
    ConfigError: the folder holds no tokenizer.
  """
  # The tokenizer as its library runs it first; a SentencePiece model lacks what was added to it
  # later.
  for name in (TOKENIZER, *SENTENCEPIECE):
    if (folder / name).is_file():
      return [folder / each for each in (name, *DESCRIPTIONS) if (folder / each).is_file()]
  raise errors.ConfigError(
    f"{folder} holds no tokenizer ({', '.join((TOKENIZER, *SENTENCEPIECE))}); write one there with"
    " transformers: AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER)."
  )


def _fetch(url: str, local: pathlib.Path, file: str) -> None:
  temporary = None
  try:
    with urllib.request.urlopen(url, timeout=20) as answer:
      content = answer.read()
    local.parent.mkdir(parents=True, exist_ok=True)
    # Beside its final place, where a rename is one step.
    with tempfile.NamedTemporaryFile(dir=local.parent, delete=False) as temporary:
      temporary.write(content)
    os.replace(temporary.name, local)  # another process may be fetching the same file
  # HTTPException of an answer that ends early: it is no OSError.
  except (urllib.error.URLError, http.client.HTTPException, TimeoutError, OSError) as cause:
    raise errors.ConfigError(
      f"vocabulary {file} could not be fetched ({cause}). {_advice(file)}"
    ) from cause
  finally:
    if temporary is not None:  # an interruption leaves nothing either
      pathlib.Path(temporary.name).unlink(missing_ok=True)


def _advice(file: str) -> str:
  # Of a vocabulary of ours the variable can be named that replaces it.
  names = [name for name in FILES if file in (FILES[name], os.environ.get(variable(name)))]
  if not names:
    return "Check the path."
  return f"Copy {FILES[names[0]]} to this machine and set {variable(names[0])} to its path."
