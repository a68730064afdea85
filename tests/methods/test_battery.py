"""What every method keeps on every backbone.  A method joins by one entry in METHODS.

Default: one encoder-decoder and one decoder-only model, layers unrolled.  The other backbones and
scanned layers are marked slow.  Own parameters are moved away from their start before anything is
compared, because many methods start as no change at all.
"""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promot_jax import errors, partitioning, paths
from promot_jax.methods import files
from promot_jax.methods.adapter import Adapter
from promot_jax.methods.bias import BitFit
from promot_jax.methods.combined import Combined
from promot_jax.methods.ia3 import IA3
from promot_jax.methods.infix import InfixTuning
from promot_jax.methods.lora import LoRA
from promot_jax.methods.prefix import PrefixTuning, Reparameterization
from promot_jax.methods.prompt import PromptNetwork, SoftPrompt
from promot_jax.methods.top_layers import TopLayers
from promot_jax.models.scanning import stack_layers
from promot_jax.networks import trained_methods
from tiny_models import batch_of, close, compilations, logits, moved, program, same_arrays, tiny

TARGET, ROWS = 4, 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
  """A method of the battery.

  method: what is attached.
  same_at_start: whether the outputs are the backbone's before anything is trained.
  undefined: backbone -> words of the sentence with which it is refused there.
  flat: pattern of own parameters whose gradient is 0 by arithmetic; the reason belongs beside it.
  with_prompt: whether a soft prompt can be attached too.
  slow: whether it is one of the slow tests, since another entry is nearly the same.
  """

  method: object
  same_at_start: bool = True
  undefined: Mapping[str, str] = dataclasses.field(default_factory=dict)
  flat: str = ""
  with_prompt: bool = True
  slow: bool = False


_ENCODER = dict.fromkeys(("t5", "umt5", "bart"), "between x and y")
METHODS = {
  "prompt": Entry(method=SoftPrompt(length=3), same_at_start=False, with_prompt=False),
  "p_tuning": Entry(
    method=SoftPrompt(length=3, network=PromptNetwork(hidden=6, hidden_layers=2)),
    same_at_start=False,
    with_prompt=False,
  ),
  "prompt_bank": Entry(
    method=SoftPrompt(length=3, tasks=2), same_at_start=False, with_prompt=False
  ),
  "prefix": Entry(method=PrefixTuning(length=3), same_at_start=False),
  "prefix_peft": Entry(method=PrefixTuning(length=3, positions="peft"), same_at_start=False),
  "prefix_adapterhub": Entry(
    method=PrefixTuning(length=3, positions="adapterhub"), same_at_start=False
  ),
  "prefix_bank": Entry(method=PrefixTuning(length=3, tasks=2), same_at_start=False),
  "prefix_network": Entry(
    method=PrefixTuning(length=3, reparameterization=Reparameterization(hidden=6, width=4)),
    same_at_start=False,
  ),
  "infix": Entry(
    method=InfixTuning(length=3), same_at_start=False, undefined=_ENCODER, with_prompt=False
  ),
  "infix_bank": Entry(
    method=InfixTuning(length=3, tasks=2),
    same_at_start=False,
    undefined=_ENCODER,
    with_prompt=False,
  ),
  "combined": Entry(
    method=Combined(methods=[SoftPrompt(length=3), PrefixTuning(length=2)]),
    same_at_start=False,
    with_prompt=False,
  ),
  "adapter": Entry(method=Adapter(bottleneck=3, std=1e-7)),
  "adapter_cross_norms": Entry(
    method=Adapter(bottleneck=2, std=1e-7, cross_attention=True, train_norms=True)
  ),
  "adapter_lin": Entry(method=Adapter(bottleneck=3, placement="lin", std=1e-7)),
  # The bias of a key moves all scores of a query alike, which softmax does not see.
  "bitfit": Entry(method=BitFit(), flat=".*/key/bias"),
  "ia3": Entry(method=IA3()),
  "top_layers": Entry(method=TopLayers(layers=1), flat=".*/key/bias"),
  "lora": Entry(method=LoRA(rank=3, alpha=6, dropout_rate=0.1)),
  "lora_everywhere": Entry(method=LoRA(rank=2, targets=".*"), slow=True),
  "dora_everywhere": Entry(method=LoRA(rank=2, alpha=3, targets=".*", decomposed=True)),
  "lora_bank": Entry(method=LoRA(rank=2, tasks=2)),
  "ia3_bank": Entry(method=IA3(tasks=2)),
}


def backbone(kind: str, scanned: bool = False) -> nnx.Module:
  pair = {"encoder_layers": 2, "decoder_layers": 2}
  return tiny(kind, scanned=scanned, **(pair if kind in ("t5", "umt5", "bart") else {}))


FORMS = [
  pytest.param("t5", False, id="t5"),
  pytest.param("gpt2", False, id="gpt2"),
  pytest.param("umt5", False, id="umt5", marks=pytest.mark.slow),
  pytest.param("bart", False, id="bart", marks=pytest.mark.slow),
  pytest.param("llama", False, id="llama", marks=pytest.mark.slow),
  pytest.param("palm", False, id="palm", marks=pytest.mark.slow),
  *(
    pytest.param(kind, True, id=f"{kind}-scanned", marks=pytest.mark.slow)
    for kind in ("t5", "umt5", "gpt2", "bart", "llama", "palm")
  ),
]
each_method = pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=pytest.mark.slow if entry.slow else ())
    for name, entry in METHODS.items()
  ],
)
each_backbone = pytest.mark.parametrize("kind,scanned", FORMS)


def start_of(name: str, kind: str, scanned: bool) -> nnx.Module:
  """The method freshly attached; skips where it is not defined, which has a test of its own."""
  if kind in METHODS[name].undefined:
    pytest.skip(f"{name} is not defined on {kind}")
  return _start(name, kind, scanned)


@functools.cache
def _start(name: str, kind: str, scanned: bool) -> nnx.Module:
  return METHODS[name].method.attach(backbone(kind, scanned), nnx.Rngs(1))


def moved_of(name: str, kind: str, scanned: bool) -> nnx.Module:
  """The attached model with its own parameters away from their start."""
  return _moved(name, kind, scanned) if start_of(name, kind, scanned) else None


@functools.cache
def _moved(name: str, kind: str, scanned: bool) -> nnx.Module:
  return moved(_start(name, kind, scanned), METHODS[name].method)


@each_method
@each_backbone
def test_attaching_adds_exactly_the_own_parameters_and_leaves_the_others(name, kind, scanned):
  model, attached = backbone(kind, scanned), start_of(name, kind, scanned)
  before, after = paths.named_leaves(model), paths.named_leaves(attached)
  own = paths.match(METHODS[name].method.parameters, after)
  assert set(own) == set(after) - set(before)
  assert set(before) <= set(after)
  assert all(after[leaf] is before[leaf] for leaf in before), "the arrays must be shared"
  assert "prompt" not in vars(model) and paths.named_leaves(model).keys() == before.keys()


@each_method
@each_backbone
def test_detaching_gives_the_backbone_back_bit_for_bit(name, kind, scanned):
  same_arrays(METHODS[name].method.detach(moved_of(name, kind, scanned)), backbone(kind, scanned))


@each_method
@each_backbone
def test_it_starts_as_the_backbone_and_can_leave_it(name, kind, scanned):
  expected = logits(backbone(kind, scanned))
  if METHODS[name].same_at_start:
    close(logits(start_of(name, kind, scanned)), expected)
  found = logits(moved_of(name, kind, scanned))
  assert np.abs(found - expected).max() > 1e-3 * np.abs(expected).max()


@each_method
@each_backbone
def test_a_gradient_reaches_every_own_parameter_and_no_other(name, kind, scanned):
  model, entry = moved_of(name, kind, scanned), METHODS[name]
  graphdef, trainable, frozen = paths.split(model, entry.method.parameters)
  batch = batch_of(model)

  @jax.jit
  def gradient(trainable, frozen):
    def loss(trainable):
      whole = nnx.merge(graphdef, trainable, frozen)
      scores = jax.nn.log_softmax(whole.logits(whole.hidden(batch)))
      return jnp.sum(jnp.take_along_axis(scores, batch["decoder_target_tokens"][..., None], -1))

    return jax.grad(loss)(trainable)

  found = paths.named_leaves(gradient(trainable, frozen))
  assert set(found) == set(paths.named_leaves(model)) - set(
    paths.named_leaves(backbone(kind, scanned))
  )
  flat = set(paths.match(entry.flat, found)) if _matches(entry.flat, found) else set()
  for leaf, value in found.items():
    if leaf not in flat:
      assert np.isfinite(value).all() and np.abs(value).max() > 1e-7, leaf


def _matches(pattern: str, names) -> bool:
  try:
    return bool(pattern) and bool(paths.match(pattern, names))
  except errors.ConfigError:
    return False


@each_method
@each_backbone
def test_scanned_layers_compute_what_unrolled_ones_do(name, kind, scanned):
  if scanned:
    pytest.skip("is compared from the unrolled side")
  unrolled = moved_of(name, kind, False)
  stacked = stack_layers(unrolled)
  close(logits(stacked), logits(unrolled))
  attached = METHODS[name].method.attach(backbone(kind, True), nnx.Rngs(1))
  shapes = {leaf: value.shape for leaf, value in paths.named_leaves(stacked).items()}
  assert shapes == {leaf: value.shape for leaf, value in paths.named_leaves(attached).items()}


@each_method
@each_backbone
def test_decoding_with_a_cache_is_teacher_forcing(name, kind, scanned):
  model = moved_of(name, kind, scanned)
  graphdef, state = nnx.split(model)

  @jax.jit
  def decode(state, batch):
    whole = nnx.merge(graphdef, state)
    targets = batch["decoder_target_tokens"]
    given = {part: batch[part] for part in ("encoder_input_tokens", "prompt_ids")}
    scores, cache = whole.prefill(given, max_length=TARGET)
    found = [scores]
    for position in range(TARGET - 1):
      scores, cache = whole.decode_step(targets[:, position], cache)
      found.append(scores)
    return jnp.stack(found, axis=1)

  close(decode(state, batch_of(model)), logits(model))


@each_method
@each_backbone
def test_attaching_it_again_compiles_nothing(name, kind, scanned):
  logits(moved_of(name, kind, scanned))
  compiled = compilations()
  again = METHODS[name].method.attach(backbone(kind, scanned), nnx.Rngs(7))
  logits(again)
  assert compilations() == compiled


@each_method
@each_backbone
def test_attaching_it_twice_is_refused(name, kind, scanned):
  attached = start_of(name, kind, scanned)
  with pytest.raises(errors.ConfigError, match=r"already|taken"):
    METHODS[name].method.attach(attached, nnx.Rngs(2))


@each_method
@each_backbone
def test_detaching_what_is_not_attached_is_refused(name, kind, scanned):
  if kind in METHODS[name].undefined:
    pytest.skip(f"{name} is not defined on {kind}")
  with pytest.raises(errors.ConfigError, match="detach"):
    METHODS[name].method.detach(backbone(kind, scanned))


@each_method
@each_backbone
def test_it_stands_beside_a_prompt_in_any_order(name, kind, scanned):
  if not METHODS[name].with_prompt:
    pytest.skip(f"{name} is a prompt, or takes its slot")
  method, prompt = METHODS[name].method, SoftPrompt(length=2)
  alone = start_of(name, kind, scanned)
  last = moved(prompt.attach(alone, nnx.Rngs(3)), method)
  first = method.attach(prompt.attach(backbone(kind, scanned), nnx.Rngs(3)), nnx.Rngs(1))
  first = moved(first, method)
  np.testing.assert_array_equal(logits(first), logits(last))
  same_arrays(prompt.detach(first), moved_of(name, kind, scanned))
  same_arrays(prompt.detach(method.detach(last)), backbone(kind, scanned))


@each_method
@each_backbone
def test_its_parameters_alone_are_saved_and_come_back(name, kind, scanned, tmp_path):
  method, model = METHODS[name].method, moved_of(name, kind, scanned)
  path = trained_methods.export(tmp_path / "method.npz", model, method)
  _, file = files.open_method(path, model.config)
  expected = method.fold(model)
  for form in (scanned, not scanned):
    found, built = trained_methods.attached(backbone(kind, form), file, where="file")
    assert built.parameters == method.parameters
    if form == scanned:
      same_arrays(found, expected)
  other = paths.replace_leaves(
    backbone(kind, scanned),
    {leaf: value + 1 for leaf, value in paths.named_leaves(backbone(kind, scanned)).items()},
  )
  with pytest.raises(errors.ConfigError, match="fingerprint"):
    trained_methods.attached(other, file, where="file")


@each_method
@pytest.mark.parametrize("kind", ["t5", "gpt2", "bart", "llama"])
def test_where_it_is_not_defined_a_sentence_says_why(name, kind):
  words = METHODS[name].undefined.get(kind)
  if words is None:
    pytest.skip(f"{name} is defined on {kind}")
  with pytest.raises(errors.ConfigError, match=words):
    METHODS[name].method.attach(backbone(kind), nnx.Rngs(0))


# One of each way to change a backbone; the others are slow.
QUICK = {
  "prompt": "t5",
  "adapter": "t5",
  "dora_everywhere": "t5",
  "prefix": "gpt2",
  "ia3_bank": "gpt2",
  "top_layers": "gpt2",
}
ON_MESHES = [
  pytest.param(
    *(name, *form.values, data),
    id=f"{name}-{form.id}-data={data}-model=2",
    marks=() if data == 2 and QUICK.get(name) == form.id else pytest.mark.slow,
  )
  for name in METHODS
  for form in FORMS
  for data in (1, 2)
]


@pytest.mark.parametrize("name,kind,scanned,data", ON_MESHES)
def test_sharded_over_a_mesh_it_computes_the_same(name, kind, scanned, data):
  model = moved_of(name, kind, scanned)
  mesh = partitioning.make_mesh(data=data, model=2, devices=jax.devices()[: 2 * data])
  placed = partitioning.place(model, mesh)
  batch = partitioning.global_batch(batch_of(model), mesh)
  leaves = paths.named_leaves(placed)
  split = set(paths.match([r".*attention/\w+/kernel", r".*/mlp/\w+/kernel", "token_.*"], leaves))
  for leaf, value in leaves.items():
    parts = value.size // value.addressable_shards[0].data.size
    assert parts == 2 if leaf in split else parts in (1, 2), leaf
  run = program(placed, batch)
  assert "all-reduce" in run.as_text(), "the parts of a product are summed over 'model'"
  close(run(nnx.state(placed), batch), logits(model))


def _with_equal_tables(kind: str) -> nnx.Module:
  """The T5, or the one with a table of biases in every layer whose tables are those of the T5."""
  model = backbone(kind)
  leaves, shared = paths.named_leaves(model), paths.named_leaves(backbone("t5"))
  for name in leaves:
    place = f"{name.split('/')[0]}/relpos_bias/rel_embedding"
    leaves[name] = shared[place if "relpos_bias" in name else name]
  return paths.replace_leaves(model, leaves)


@pytest.mark.parametrize("scanned", [False, True])
@pytest.mark.parametrize("name", ["prompt", "prefix", "prefix_peft", "prefix_adapterhub"])
def test_tables_of_biases_in_every_layer_are_read_as_a_shared_one_is(name, scanned):
  models = [METHODS[name].method.attach(_with_equal_tables(k), nnx.Rngs(1)) for k in ("t5", "umt5")]
  shared, own = (moved(model, METHODS[name].method) for model in models)
  close(logits(stack_layers(own) if scanned else own), logits(shared))


@pytest.mark.parametrize("name", ["prefix_adapterhub", "top_layers"])
def test_decoding_with_tables_of_biases_in_every_layer_is_teacher_forcing(name):
  for scanned in (False, True):
    test_decoding_with_a_cache_is_teacher_forcing(name, "umt5", scanned)


def test_tuned_top_layers_have_tables_of_biases_of_their_own():
  names = paths.named_leaves(start_of("top_layers", "umt5", True))
  assert "top_layers/decoder/layers/relpos_bias/rel_embedding" in names
