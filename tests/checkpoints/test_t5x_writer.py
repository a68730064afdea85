"""Checkpoints in T5X's formats, byte by byte against those that T5X itself wrote."""

import dataclasses
import json
import os

import ml_dtypes
import msgpack
import numpy as np
import pytest
from flax import nnx, serialization

from promot_jax import errors, paths
from promot_jax.checkpoints import t5x, t5x_writer
from promot_jax.checkpoints.stored import StoredArray
from promot_jax.models import T5
from tiny_models import config

STEP = 1234567
CONFIG = config("t5", vocab_size=14, width=6, mlp_width=7, encoder_layers=3)
LAYOUTS = ["legacy", "orbax"]


@pytest.fixture(autouse=True)
def unflushed(monkeypatch):
  """Hundreds of small files are forced to the disk, which a busy disk makes slow."""
  monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def files(folder):
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in folder.rglob("*")
    if path.is_file()
  }


def database(folder):
  """All keys and values of the OCDBT database that Orbax keeps its arrays in."""
  import tensorstore

  store = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{folder}/"}).result()
  return {key: store.read(key).result().value for key in store.list().result()}


def make_leaves(dtype="float32", config=CONFIG):
  """Random parameters of a T5 by our names."""
  shapes = paths.named_leaves(nnx.eval_shape(lambda: T5(config, nnx.Rngs(0))))
  draw = np.random.default_rng(0).normal
  return {name: draw(size=leaf.shape).astype(dtype) for name, leaf in shapes.items()}


def stacked_by_hand(leaves):
  result, layers = {}, {}
  for name, leaf in leaves.items():
    stack, found, rest = name.partition("/layers/")
    if found:
      layers.setdefault(f"{stack}/layers/{rest.split('/', 1)[1]}", []).append(leaf)
    else:
      result[name] = leaf
  return result | {name: np.stack(members) for name, members in layers.items()}


def assert_equal(found, expected):
  assert found.keys() == expected.keys()
  for name, array in expected.items():
    assert found[name].dtype == array.dtype, name
    np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("name", ["t5_1_1_tiny", "t5_1_1_tiny_bf16", "prompt_t5_1_1_tiny"])
def test_every_file_is_the_one_that_t5x_wrote(shared_data, tmp_path, name):
  source = shared_data / "t5x_checkpoint" / name / "legacy"
  written = t5x_writer.write_t5x(
    tmp_path, t5x.open_t5x(source), step=STEP, optimizer=t5x.read_t5x_optimizer(source)
  )
  assert written == tmp_path / f"checkpoint_{STEP}"
  assert files(written) == files(source / written.name)


def test_every_entry_of_the_database_is_the_one_that_t5x_wrote_through_orbax(shared_data, tmp_path):
  source = shared_data / "t5x_checkpoint" / "t5_1_1_tiny" / "orbax"
  written = t5x_writer.write_t5x(
    tmp_path,
    t5x.open_t5x(source),
    step=STEP,
    layout="orbax",
    optimizer=t5x.read_t5x_optimizer(source),
  )
  theirs = source / written.name
  assert database(written / "state") == database(theirs / "state")
  for name in ("state/_METADATA", "state/_sharding", "state/array_metadatas/process_0"):
    assert json.loads((written / name).read_text()) == json.loads((theirs / name).read_text())
  described = [json.loads((f / "_CHECKPOINT_METADATA").read_text()) for f in (written, theirs)]
  assert described[0].keys() == described[1].keys()
  assert described[0]["item_handlers"]["state"] == described[1]["item_handlers"]["state"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("scanned", [False, True])
@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("dtype", ["float32", ml_dtypes.bfloat16])
def test_what_is_written_is_read_back_exactly(tmp_path, layout, scanned, stacked, dtype):
  unrolled = make_leaves(dtype)
  leaves = stacked_by_hand(unrolled) if stacked else unrolled
  t5x_writer.write_t5x(tmp_path, leaves, step=3, layout=layout, scanned=scanned)
  assert_equal(t5x.read_t5x(tmp_path), unrolled)
  assert not t5x.read_t5x_optimizer(tmp_path).keys() - {"count"}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("scanned", [False, True])
@pytest.mark.parametrize("stacked", [False, True])
def test_a_table_of_biases_in_every_layer_is_written_and_read(tmp_path, layout, scanned, stacked):
  unrolled = make_leaves(config=dataclasses.replace(CONFIG, relative_bias="per_layer"))
  leaves = stacked_by_hand(unrolled) if stacked else unrolled
  written = t5x_writer.write_t5x(tmp_path, leaves, step=3, layout=layout, scanned=scanned)
  assert_equal(t5x.read_t5x(tmp_path), unrolled)
  found = t5x._open_leaves(written)
  tables = [unrolled[f"encoder/layers/{i}/relpos_bias/rel_embedding"] for i in range(3)]
  if scanned:  # [H layers buckets], as T5X's scalable_t5 has it
    bias = np.asarray(found["target/encoder/encoder/relpos_bias/rel_embedding"])
    np.testing.assert_array_equal(bias, np.stack(tables, axis=1))
  else:
    bias = np.asarray(found["target/encoder/layers_1/relpos_bias/rel_embedding"])
    np.testing.assert_array_equal(bias, tables[1])


def test_scanned_arrays_have_the_layer_axis_second_and_heads_apart(tmp_path):
  leaves = make_leaves()
  written = t5x_writer.write_t5x(tmp_path, leaves, step=0, scanned=True)
  stored = t5x._open_leaves(written)
  shapes = {name: leaf.shape for name, leaf in stored.items() if name.startswith("target/")}
  assert shapes == {
    "target/token_embedder/embedding": (14, 6),
    "target/decoder/logits_dense/kernel": (6, 14),
    **{
      f"target/{stack}/{stack}/{name}": shape(layers)
      for stack, layers, attentions in [
        ("encoder", 3, ["attention"]),
        ("decoder", 2, ["self_attention", "encoder_decoder_attention"]),
      ]
      for name, shape in {
        "relpos_bias/rel_embedding": lambda n: (2, n, 32),
        **{f"{a}/{w}/kernel": lambda n: (6, n, 2, 5) for a in attentions for w in ("query", "key")},
        **{f"{a}/value/kernel": lambda n: (6, n, 2, 5) for a in attentions},
        **{f"{a}/out/kernel": lambda n: (2, n, 5, 6) for a in attentions},
        **{f"mlp/{w}/kernel": lambda n: (6, n, 7) for w in ("wi_0", "wi_1")},
        "mlp/wo/kernel": lambda n: (7, n, 6),
        "pre_mlp_layer_norm/scale": lambda n: (6, n),
        **(
          {"pre_attention_layer_norm/scale": lambda n: (6, n)}
          if stack == "encoder"
          else {
            "pre_self_attention_layer_norm/scale": lambda n: (6, n),
            "pre_cross_attention_layer_norm/scale": lambda n: (6, n),
          }
        ),
      }.items()
    },
    "target/encoder/encoder_norm/scale": (6,),
    "target/decoder/decoder_norm/scale": (6,),
  }
  # what T5X computes with a layer's kernels equals what ours compute
  x = np.random.default_rng(1).normal(size=6)
  query = np.asarray(stored["target/encoder/encoder/attention/query/kernel"])[:, 1]
  out = np.asarray(stored["target/encoder/encoder/attention/out/kernel"])[:, 1]
  heads = np.einsum("e,ehk->hk", x, query)
  ours = x @ leaves["encoder/layers/1/attention/query/kernel"]
  np.testing.assert_allclose(heads.ravel(), ours, rtol=1e-5)
  np.testing.assert_allclose(
    np.einsum("hk,hke->e", heads, out),
    ours @ leaves["encoder/layers/1/attention/out/kernel"],
    rtol=1e-5,
  )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_parameters_without_statistics_are_marked_as_not_trained(tmp_path, layout):
  values = np.arange(12, dtype=np.float32).reshape(2, 6)
  leaves = make_leaves() | {"encoder/prompt/prompt": values}
  one = np.zeros(1, np.float32)
  statistics = {
    "v/encoder/prompt/prompt": values**2,
    **{f"{name}/encoder/prompt/prompt": one for name in ("m", "v_row", "v_col")},
  }
  written = t5x_writer.write_t5x(tmp_path, leaves, step=5, layout=layout, optimizer=statistics)
  assert_equal(t5x.read_t5x(tmp_path), leaves)
  found = t5x.read_t5x_optimizer(tmp_path)
  assert int(found.pop("count")) == 5
  assert_equal(found, statistics)
  if layout == "legacy":
    tree = msgpack.unpackb((written / "checkpoint").read_bytes(), raw=False)["optimizer"]
    assert tree["state"]["param_states"]["encoder"]["encoder_norm"]["scale"] is None
    assert (written / "target.encoder.prompt.prompt.prompt" / ".zarray").is_file()
  else:
    tree = json.loads((written / "state" / "_METADATA").read_text())["tree_metadata"]
    name = "('state', 'param_states', 'encoder', 'encoder_norm', 'scale')"
    assert tree[name]["value_metadata"] == {"value_type": "None", "skip_deserialize": True}


def test_flax_reads_the_small_arrays_of_the_msgpack_file(tmp_path):
  leaves = make_leaves()
  row = np.arange(6, dtype=np.float32)
  written = t5x_writer.write_t5x(
    tmp_path, leaves, step=5, optimizer={"v_row/token_embedder/embedding": row}
  )
  tree = serialization.msgpack_restore((written / "checkpoint").read_bytes())
  assert tree["version"] == 3
  state = tree["optimizer"]["state"]
  assert state["step"].dtype == np.int32 and state["step"].shape == () and state["step"] == 5
  np.testing.assert_array_equal(state["param_states"]["token_embedder"]["embedding"]["v_row"], row)


@pytest.mark.filterwarnings("ignore:Sharding info not provided")
def test_orbax_restores_the_newer_layout(tmp_path):
  import orbax.checkpoint as ocp

  leaves = make_leaves()
  leaves["decoder/decoder_norm/scale"] = np.zeros(6, ml_dtypes.bfloat16)
  t5x_writer.write_t5x(tmp_path, leaves, step=11, layout="orbax")
  options = ocp.CheckpointManagerOptions(step_prefix="checkpoint")
  with ocp.CheckpointManager(tmp_path, item_names=("state",), options=options) as manager:
    assert manager.all_steps() == [11]
    tree = manager.restore(11, args=ocp.args.Composite(state=ocp.args.PyTreeRestore())).state
  assert int(tree["state"]["step"]) == 11
  kernel = tree["target"]["decoder"]["layers_1"]["mlp"]["wo"]["kernel"]
  np.testing.assert_array_equal(kernel, leaves["decoder/layers/1/mlp/wo/kernel"])
  assert tree["target"]["decoder"]["decoder_norm"]["scale"].dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize(
  "shape, itemsize, expected",
  [
    ((250112, 4096), 4, (3908, 4096)),  # 250112 = 2^8 977; 64 MiB are 4096 rows
    ((4096, 10240), 4, (4096, 2560)),  # 10240 goes to 5120, 5120 to 2560 before 4096 is largest
    ((5, 3), 4, (5, 3)),
    ((), 4, ()),
  ],
)
def test_chunks_are_cut_by_t5x_rule(shape, itemsize, expected):
  assert t5x_writer.chunk_shape(shape, itemsize) == expected


@pytest.mark.parametrize("layout", LAYOUTS)
def test_arrays_larger_than_a_chunk_are_cut_and_read_back(tmp_path, layout, monkeypatch):
  monkeypatch.setattr(t5x_writer, "CHUNK_BYTES", 100)
  monkeypatch.setattr(t5x_writer, "_TOGETHER_BYTES", 200)
  leaves = make_leaves()
  written = t5x_writer.write_t5x(tmp_path, leaves, step=0, layout=layout)
  assert_equal(t5x.read_t5x(tmp_path), leaves)
  if layout == "legacy":  # 14 x 6 numbers of 4 bytes: 14 -> 7, 7 -> 1 or 6 -> 3; 25 numbers fit
    chunks = [path.name for path in (written / "target.token_embedder.embedding").iterdir()]
    assert len(chunks) - 1 == 14 * 6 // np.prod(t5x_writer.chunk_shape((14, 6), 4))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_failed_write_leaves_nothing_behind(tmp_path, layout):
  def fail():
    raise OSError(28, "No space left on device")

  leaves = make_leaves()
  leaves["token_embedder/embedding"] = StoredArray(
    name="x", shape=(14, 6), dtype=np.dtype("f4"), read=fail
  )
  with pytest.raises(errors.CannotWrite, match="No space left"):
    t5x_writer.write_t5x(tmp_path / "new", leaves, step=1, layout=layout)
  assert list((tmp_path / "new").iterdir()) == []


def test_an_existing_checkpoint_is_not_overwritten(tmp_path):
  leaves = make_leaves()
  written = t5x_writer.write_t5x(tmp_path, leaves, step=1)
  before = files(written)
  with pytest.raises(errors.ConfigError, match="not overwritten"):
    t5x_writer.write_t5x(tmp_path, leaves, step=1)
  assert files(tmp_path / "checkpoint_1") == before


def test_what_t5x_has_no_place_for_is_refused(tmp_path):
  leaves = make_leaves()
  one = np.ones(1, np.float32)
  cases = [
    (leaves | {"encoder/layers/0/attention/query/bias": one}, {}, "query/bias"),
    (leaves | {"encoder/prompt/prompt": np.ones((3, 2, 6))}, {}, "prompts of 3 tasks"),
    ({n: v for n, v in leaves.items() if "relpos" not in n}, {}, "relpos_bias"),
    (leaves, {"layout": "zip"}, "zip"),
    (leaves, {"optimizer": {"mu/token_embedder/embedding": one}}, "mu/token_embedder"),
    (leaves, {"optimizer": {"v/other": one}}, "v/other"),
    (leaves, {"optimizer": {}, "scanned": True}, "scanned"),
  ]
  for given, options, words in cases:
    with pytest.raises(errors.ConfigError, match=words):
      t5x_writer.write_t5x(tmp_path / "out", given, step=0, **options)
  assert not (tmp_path / "out").exists()
