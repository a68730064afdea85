"""What a source of weights means; buckets and the hub are stood in for by files and by memory."""

import os
import shutil

import numpy as np
import pytest

from promot_jax import paths
from promot_jax.checkpoints import disk, huggingface, locations, npz, sources, stored, t5x_writer
from promot_jax.checkpoints.store import Store
from promot_jax.errors import CannotWrite, ConfigError, DamagedCheckpoint
from tiny_models import config, tiny

CONFIG = config("t5")


@pytest.fixture(scope="module")
def leaves() -> dict:
  return paths.named_leaves(tiny("t5"))


@pytest.fixture(scope="module")
def places(leaves, tmp_path_factory) -> dict:
  """One checkpoint in every format."""
  root = tmp_path_factory.mktemp("checkpoints")
  store = Store(root / "run", report=lambda line: None)
  store.save(3, {f"trainable/{name}": leaf for name, leaf in leaves.items()}, {})
  store.close()
  arrays = {name: stored.as_stored(name, leaf) for name, leaf in leaves.items()}
  return {
    "hf": huggingface.write_hf(root / "hf", leaves, CONFIG),
    "t5x": t5x_writer.write_t5x(root / "legacy", leaves, step=5),
    "orbax": t5x_writer.write_t5x(root / "orbax", leaves, step=6, layout="orbax"),
    "step": store.path(3),
    "npz": npz.write_npz(root / "weights.npz", arrays),
  }


@pytest.fixture
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  return tmp_path / "cache"


def assert_opens(text, kind, leaves) -> None:
  source = sources.resolve(text)
  assert source.kind == kind
  found = sources.open_source(source, CONFIG)
  assert found.keys() == leaves.keys()
  for name, leaf in leaves.items():
    assert found[name].shape == leaf.shape
    np.testing.assert_array_equal(np.asarray(found[name]), leaf)


@pytest.mark.parametrize("prefix", ["", "local:"])
@pytest.mark.parametrize("place", ["hf", "t5x", "orbax", "step", "npz"])
def test_the_format_of_a_local_checkpoint_is_found_by_looking_at_it(places, leaves, place, prefix):
  kind = "t5x" if place == "orbax" else place
  assert_opens(f"{prefix}{places[place]}", kind, leaves)


def test_a_folder_of_steps_means_its_last_one(places, leaves):
  folder = places["step"].parent
  assert sources.resolve(str(folder)).place == str(places["step"])
  assert_opens(str(folder), "step", leaves)


@pytest.mark.parametrize("place", ["t5x", "orbax"])
def test_a_t5x_checkpoint_is_read_in_place_from_a_url(places, leaves, place):
  assert_opens(f"file://{places[place]}", "t5x", leaves)
  assert_opens(f"file://{places[place].parent}/", "t5x", leaves)  # its last step


def test_a_hugging_face_folder_of_a_url_is_copied_once_to_the_cache(places, leaves, cache):
  assert_opens(f"file://{places['hf']}", "hf", leaves)
  assert_opens(f"hf:file://{places['hf']}", "hf", leaves)
  copies = list((cache / "promot_jax" / "checkpoints").iterdir())
  assert len(copies) == 1
  assert {path.name for path in copies[0].iterdir()} == {
    path.name for path in places["hf"].iterdir()
  }


def test_fsspec_finds_what_tensorstore_does_not_know(places, leaves, cache):
  import fsspec

  memory = fsspec.filesystem("memory")
  for file in places["hf"].iterdir():
    memory.pipe_file(f"/bucket/t5/{file.name}", file.read_bytes())
  memory.pipe_file("/bucket/t5/modeling_t5.py", b"raise SystemExit('code of a checkpoint ran')")
  assert_opens("memory://bucket/t5", "hf", leaves)
  (copy,) = (cache / "promot_jax" / "checkpoints").iterdir()
  assert not list(copy.glob("*.py"))
  memory.pipe_file("/bucket/t5/config.json", b"{}")  # a new version has a new copy
  with pytest.raises(ConfigError, match="has no model_type"):
    sources.open_source(sources.resolve("memory://bucket/t5"), CONFIG)


def test_a_hub_name_and_its_revision_are_asked_for_as_data_only(places, monkeypatch):
  huggingface_hub = pytest.importorskip("huggingface_hub")
  asked = []

  def download(repository, *, revision, allow_patterns):
    asked.append((repository, revision, allow_patterns))
    return str(places["hf"])

  monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
  assert sources.resolve("hf:google/t5-v1_1-small@v1").place == str(places["hf"])
  assert sources.resolve("hf:gpt2").kind == "hf"
  patterns = list(locations.PATTERNS)
  assert asked == [("google/t5-v1_1-small", "v1", patterns), ("gpt2", None, patterns)]
  assert not [pattern for pattern in patterns if pattern.endswith((".py", ".bin"))]


def test_without_a_network_the_next_step_is_said(monkeypatch):
  huggingface_hub = pytest.importorskip("huggingface_hub")

  def fail(*_, **__):
    raise ConnectionError("Name or service not known")

  monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
  with pytest.raises(ConfigError) as caught:
    sources.resolve("hf:google/t5-v1_1-small@abc")
  assert "hf download google/t5-v1_1-small --revision abc --local-dir DIR" in str(caught.value)


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("", "is empty; give micro, random"),
    ("/no/such/folder", "is not a folder on this machine"),
    ("google/t5-v1_1-small", "hf:google/t5-v1_1-small for a model of the hub"),
    ("hf:/no/such/folder", "neither a folder on this machine nor a name of the hub"),
    ("hf:a/b/c", "neither a folder on this machine nor a name of the hub"),
    ("nonsense://bucket/model", "Copy the folder here"),
    ("hf:reference::https://example.org/x.json", "not of a kind that is fetched"),
    ("hf:dask://127.0.0.1/x", "not of a kind that is fetched"),
    ("file:///no/such/folder", "is not a folder that can be read here"),
    ("memory://a::reference://::memory://references.json", "not of a kind that is fetched"),
  ],
)
def test_what_is_no_checkpoint_is_refused_with_the_next_step(text, words):
  with pytest.raises(ConfigError, match=words):
    sources.open_source(sources.resolve(text), CONFIG)


def test_a_folder_of_an_adapter_is_no_model(tmp_path):
  (tmp_path / "adapter_config.json").write_text("{}")
  with pytest.raises(ConfigError, match="PEFT adapter, which is no whole model"):
    sources.open_source(sources.resolve(str(tmp_path)), CONFIG)


def test_a_damaged_step_is_not_opened(places, tmp_path):
  import shutil

  copy = shutil.copytree(places["step"], tmp_path / "checkpoint_3")
  (copy / "metadata.json").write_text("{}")
  with pytest.raises(DamagedCheckpoint, match="is damaged"):
    sources.open_source(sources.resolve(str(copy)))


def test_an_npz_file_never_unpickles_and_is_whole_or_absent(tmp_path):
  np.savez(tmp_path / "objects.npz", a=np.array([{"code": 1}], dtype=object))
  with pytest.raises(ConfigError, match="Python objects"):
    npz.open_npz(tmp_path / "objects.npz")
  (tmp_path / "cut.npz").write_bytes((tmp_path / "objects.npz").read_bytes()[:-30])
  with pytest.raises(DamagedCheckpoint, match="no whole"):
    npz.open_npz(tmp_path / "cut.npz")

  def refuse():
    raise OSError(28, "No space left on device")

  array = stored.StoredArray(name="a", shape=(2,), dtype=np.dtype("f4"), read=refuse)
  with pytest.raises(CannotWrite, match="No space left"):
    npz.write_npz(tmp_path / "new.npz", {"a": array})
  assert not list(tmp_path.glob("*new.npz*"))


def left_by_a_killed_process(path, kind):
  """What stands under a temporary name; gives what a link there leads to."""
  elsewhere = path.parent / "elsewhere"
  elsewhere.mkdir(parents=True)
  (elsewhere / "kept").write_text("")
  if kind == "link":
    path.symlink_to(elsewhere)
  elif kind == "file":
    path.write_text("")
  else:
    path.mkdir()
    (path / "half.json").write_text("{")
  return elsewhere / "kept"


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_a_leftover_of_a_process_with_our_number_does_not_end_an_export(tmp_path, kind):
  kept = left_by_a_killed_process(tmp_path / f"new.tmp-{os.getpid()}", kind)
  with disk.whole_folder(tmp_path / "new") as folder:
    (folder / "a").write_text("a")
  assert [path.name for path in (tmp_path / "new").iterdir()] == ["a"]
  assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "new"]
  assert kept.exists()


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_a_leftover_of_a_process_with_our_number_does_not_end_a_fetch(places, cache, kind):
  url = f"file://{places['hf']}"
  copy = locations.fetch_hf(url)
  shutil.rmtree(copy)
  kept = left_by_a_killed_process(copy.with_name(f"{copy.name}.tmp-{os.getpid()}"), kind)
  assert locations.fetch_hf(url) == copy
  assert {path.name for path in copy.iterdir()} == {path.name for path in places["hf"].iterdir()}
  assert kept.exists()


class NoCredentials(Exception):
  """As of google.auth and botocore: of no common base."""


@pytest.mark.parametrize("call", ["url_to_fs", "ls", "ukey", "get_file"])
def test_credentials_that_are_missing_are_said_with_the_next_step(places, cache, monkeypatch, call):
  import fsspec
  from fsspec.implementations.local import LocalFileSystem

  def fail(*_, **__):
    raise NoCredentials("Your default credentials were not found.")

  monkeypatch.setattr(fsspec.core if call == "url_to_fs" else LocalFileSystem, call, fail)
  with pytest.raises(ConfigError, match=r"default credentials were not found\.\). Check"):
    locations.fetch_hf(f"file://{places['hf']}")
  assert not list(cache.rglob("*.tmp-*"))
