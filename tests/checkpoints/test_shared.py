"""The store of several processes: the same files as a store of one, in both directions.

Here with the one process of the test, where every agreement is with itself; tests/scale has two.
"""

import numpy as np
import pytest

from promot_jax import errors
from promot_jax.checkpoints.policy import Keep
from promot_jax.checkpoints.shared import SharedStore, open_store
from promot_jax.checkpoints.store import Store


def leaves(scale: float = 1.0) -> dict[str, np.ndarray]:
  return {
    "a/kernel": scale * np.arange(15, dtype=np.float32).reshape(3, 5),
    "step": np.asarray(7, np.int32),
  }


def shared(folder, **options) -> SharedStore:
  return SharedStore(Store(folder, **options))


def test_a_process_that_is_alone_gets_a_plain_store(tmp_path):
  assert isinstance(open_store(tmp_path), Store)


def test_what_one_kind_of_store_saves_the_other_restores(tmp_path):
  for saving, restoring in ((shared, Store), (Store, shared)):
    folder = tmp_path / saving.__name__
    store = saving(folder)
    store.save(3, leaves(), {"history": [1, 2]})
    store.save(5, leaves(2.0), {"history": []})
    store.record_score(3, 0.5, {"accuracy": 0.5})
    store.close()
    other = restoring(folder)
    assert (other.steps(), other.latest()) == ([3, 5], 5)
    assert other.score(3) == {"score": 0.5, "metrics": {"accuracy": 0.5}}
    restored = other.restore(3)
    assert restored.metadata == {"history": [1, 2]}
    for name, value in leaves().items():
      np.testing.assert_array_equal(restored.leaves[name], value)


def test_old_steps_are_given_up_by_the_policy(tmp_path):
  store = shared(tmp_path)
  store.keep = Keep(last=1, small_bytes=0)
  for step in (1, 2, 3):
    store.save(step, leaves(), {})
  assert store.steps() == [3]


def test_a_damaged_step_is_set_aside_and_the_one_before_it_restored(tmp_path):
  lines = []
  store = shared(tmp_path, report=lines.append)
  for step in (1, 2):
    store.save(step, leaves(float(step)), {})
  file = max(
    (path for path in (store.path(2) / "arrays").rglob("*") if path.is_file()),
    key=lambda path: path.stat().st_size,
  )
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 1
  file.write_bytes(content)
  again = shared(tmp_path, report=lines.append)
  with pytest.raises(errors.DamagedCheckpoint, match="checkpoint_2 is damaged"):
    again.restore(2)
  assert again.restore_latest().step == 1
  assert any("using step 1 instead" in line for line in lines)
  assert (tmp_path / "checkpoint_2.damaged").is_dir()


def test_a_step_that_cannot_be_finished_leaves_nothing_behind(tmp_path):
  store = shared(tmp_path)
  with pytest.raises(TypeError):
    store.save(1, leaves(), {"not JSON": object()})
  assert store.steps() == []
  assert not list(tmp_path.glob("checkpoint_*"))


def test_nothing_saved_restores_nothing(tmp_path):
  store = shared(tmp_path)
  assert store.restore_latest() is None
  assert store.read_json("marker.json", shape={"step": int}, advice="") is None
  store.write_json("marker.json", {"step": 2})
  assert store.read_json("marker.json", shape={"step": int}, advice="") == {"step": 2}
