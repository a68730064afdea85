"""The table of a step's files: sizes and digests, and what of it counts as damage."""

import hashlib
import json

import numpy as np
import pytest

from promot_jax.checkpoints import manifest
from promot_jax.checkpoints.store import Store


def test_the_manifest_lists_every_file_with_its_digest(tmp_path):
  store = Store(tmp_path)
  store.save(4, {"a": np.arange(3), "b/c": np.ones((2, 5), np.float32)}, {})
  store.close()
  directory = tmp_path / "checkpoint_4"
  files = json.loads((directory / "manifest.json").read_text())["files"]
  present = {str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file()}
  assert set(files) == present - {"manifest.json"}
  for name, entry in files.items():
    content = (directory / name).read_bytes()
    assert entry["size"] == len(content)
    assert entry["sha256"] == [hashlib.sha256(content).hexdigest()]


def test_large_files_are_hashed_in_blocks(tmp_path, monkeypatch):
  (tmp_path / "a").write_bytes(bytes(range(250)))
  monkeypatch.setattr(manifest, "BLOCK", 100)
  monkeypatch.setattr(manifest._digests, "__kwdefaults__", {"block": 100, "flush": False})
  manifest.write(tmp_path)
  entry = json.loads((tmp_path / "manifest.json").read_text())["files"]["a"]
  assert len(entry["sha256"]) == 3
  monkeypatch.undo()
  assert manifest.problems(tmp_path) == []  # the block size is read from the manifest
  (tmp_path / "a").write_bytes(bytes([*range(249), 0]))
  assert manifest.problems(tmp_path) == ["a has another SHA-256 than when it was written"]


@pytest.mark.parametrize(
  ("block", "files"),
  [
    (0, {"a": {"size": 1, "sha256": ["x"]}}),
    (-5, {"a": {"size": 1, "sha256": ["x"]}}),
    ("x", {"a": {"size": 1, "sha256": ["x"]}}),
    (1.5, {"a": {"size": 1, "sha256": ["x"]}}),
    (1, {"a": {"size": 2, "sha256": ["x"]}}),
    (1, {"a": {"size": "1", "sha256": ["x"]}}),
    (1, {"a": {"size": 1}}),
    (1, {"a": 3}),
    (1, [["a"]]),
    (1, []),
    (1, {}),
  ],
)
def test_a_manifest_of_another_shape_is_damage_although_its_checksum_is_right(
  tmp_path, block, files
):
  (tmp_path / "a").write_bytes(b"1")
  body = {"block": block, "files": files}
  text = json.dumps({**body, "sha256": manifest._self_digest(body)})
  (tmp_path / "manifest.json").write_text(text)
  (problem,) = manifest.problems(tmp_path)
  assert "is no table" in problem or "cannot be read" in problem


def test_a_nested_manifest_is_damage(tmp_path):
  (tmp_path / "manifest.json").write_text("[" * 100_000)
  assert manifest.problems(tmp_path) == ["manifest.json cannot be read (RecursionError)"]
