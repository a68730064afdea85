"""Identities change with content and say what changed."""

import hashlib
import json
import os

from promot_jax import identity
from promot_jax.identity import Identity, Part


def made(records: int, rate: float = 0.1) -> Identity:
  return Identity(
    parts={
      "training data": identity.part(list(range(records)), about=f"{records} records"),
      "settings": identity.part({"rate": rate}),
    }
  )


def test_a_change_is_explained_by_what_a_person_knows():
  (said,) = made(301).changes(made(300))
  new, old = (identity.digest(list(range(n))) for n in (301, 300))
  assert said == (
    f"the training data changed: 301 records (sha {new}), was 300 records (sha {old})"
  )
  assert made(300).changes(made(300)) == []
  assert made(300).digest == made(300).digest != made(301).digest
  assert made(301, 0.2).changes(made(300), ["settings"])[0].startswith("the settings changed: sha")


def test_an_identity_survives_json_and_parts_that_one_lacks_are_not_compared():
  stored = json.loads(json.dumps(made(300).to_json()))
  assert Identity.from_json(stored) == made(300)
  del stored["training data"]
  assert made(301).changes(Identity.from_json(stored)) == []
  for other in (None, [], "x", 3):
    assert Identity.from_json(other) is None
  assert Identity.from_json({"a": 3, "b": {"digest": "x"}}) == Identity(
    parts={"b": Part(digest="x")}
  )


def test_the_digest_of_a_file_is_the_start_of_its_sha256(tmp_path):
  (tmp_path / "f").write_bytes(b"abc" * 1000)
  assert identity.of_file(tmp_path / "f") == hashlib.sha256(b"abc" * 1000).hexdigest()[:16]
  assert identity.digest(b"abc") == hashlib.sha256(b"abc").hexdigest()[:16]


def test_a_folder_changes_with_names_small_content_sizes_and_times(tmp_path):
  folder = tmp_path / "model"
  folder.mkdir()
  (folder / "config.json").write_text('{"a": 1}')
  (folder / "weights.bin").write_bytes(b"0123456789")
  os.utime(folder / "weights.bin", ns=(5, 5))
  seen = [identity.of_files(folder)]

  (folder / "config.json").write_text('{"a": 2}')  # as long as before
  seen.append(identity.of_files(folder))
  (folder / "weights.bin").write_bytes(b"9876543210")  # as long as before, at another time
  seen.append(identity.of_files(folder))
  (folder / "more.bin").write_bytes(b"")
  seen.append(identity.of_files(folder))
  (folder / "more.bin").rename(folder / "other.bin")
  seen.append(identity.of_files(folder))
  assert len(set(seen)) == len(seen)
  os.utime(folder / "config.json", ns=(7, 7))  # its content counts, not its time
  assert identity.of_files(folder) == seen[-1]


def test_a_link_into_a_cache_named_by_content_counts_with_that_name(tmp_path):
  blob = tmp_path / "blobs" / hashlib.sha256(b"weights").hexdigest()
  blob.parent.mkdir()
  blob.write_bytes(b"weights")
  folder = tmp_path / "snapshot"
  folder.mkdir()
  (folder / "model.safetensors").symlink_to(blob)
  before = identity.of_files(folder)
  os.utime(blob, ns=(9, 9))
  assert identity.of_files(folder) == before


def test_a_safetensors_file_counts_with_its_header(tmp_path):
  path = tmp_path / "model.safetensors"
  digests = set()
  for name in ("a", "b"):
    header = json.dumps({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"0000")
    os.utime(path, ns=(5, 5))
    digests.add(identity.of_files(path))
  assert len(digests) == 2


def test_the_code_is_told_by_its_source(tmp_path, monkeypatch):
  monkeypatch.setattr(identity, "__file__", str(tmp_path / "identity.py"))
  digests = []
  for text in ("a = 1", "a = 2", "a = 1"):
    (tmp_path / "inner.py").write_text(text)
    digests.append(identity.of_code.__wrapped__().digest)  # without the cache
  assert digests[0] == digests[2] != digests[1]
  assert identity.of_code().about.startswith("promot_jax ")
