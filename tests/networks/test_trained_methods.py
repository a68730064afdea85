"""Method files: small, equal after a round trip, and refused by another backbone."""

import jax
import numpy as np
import pytest
from flax import nnx

from promot_jax import errors, paths
from promot_jax.checkpoints import method_files
from promot_jax.checkpoints.method_files import Backbone
from promot_jax.methods import files, initializers
from promot_jax.methods.combined import Combined
from promot_jax.methods.infix import InfixTuning
from promot_jax.methods.prefix import FromFile, PrefixTuning, Reparameterization
from promot_jax.methods.prompt import PromptNetwork, SoftPrompt
from promot_jax.models.scanning import stack_layers
from promot_jax.networks import trained_methods
from tiny_models import tiny

BATCH = {
  "encoder_input_tokens": np.asarray([[4, 9, 6], [8, 3, 0]], np.int32),
  "decoder_input_tokens": np.asarray([[0, 5], [0, 7]], np.int32),
  "prompt_ids": np.asarray([1, 0], np.int32),
}
METHODS = {
  "prompt": SoftPrompt(length=2),
  "prefix": PrefixTuning(length=3, sites=["encoder", "cross"]),
  "bank_through_networks": Combined(
    methods=[
      SoftPrompt(length=2, tasks=2, network=PromptNetwork(hidden=4)),
      PrefixTuning(length=3, tasks=2, reparameterization=Reparameterization(hidden=4)),
    ]
  ),
}


def model(seed=0, **changes):
  return tiny("t5", seed=seed, encoder_layers=2, decoder_layers=1, **changes)


@pytest.mark.parametrize("scanned", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_a_method_goes_through_its_file_and_gives_equal_outputs(tmp_path, name, scanned):
  method = METHODS[name]
  attached = method.attach(model(), nnx.Rngs(1))
  path = trained_methods.export(
    tmp_path / "a" / "method.npz",
    stack_layers(attached) if scanned else attached,
    method,
    notes={"task": "rte"},
  )
  _, file = files.open_method(path, model().config)
  assert file.notes == {"task": "rte"}
  assert path.stat().st_size < 40_000  # the backbone alone has 10,000
  again, rebuilt = trained_methods.attached(
    model() if scanned else stack_layers(model()), file, where=str(path)
  )
  assert files.describe(rebuilt) == files.describe(method.folded())
  np.testing.assert_allclose(again.hidden(BATCH), attached.hidden(BATCH), atol=2e-6)


def test_a_prefix_starts_from_a_method_file(tmp_path):
  method = PrefixTuning(length=3)
  attached = method.attach(model(), nnx.Rngs(1))
  path = trained_methods.export(tmp_path / "method.npz", attached, method)
  again = PrefixTuning(length=3, initializer=FromFile(path=path)).attach(model(), nnx.Rngs(7))
  for name in paths.match(method.parameters, paths.named_leaves(again)):
    leaves = [paths.named_leaves(each)[name] for each in (again, attached)]
    np.testing.assert_array_equal(*leaves)


def test_a_bank_of_prompts_starts_from_the_method_files_of_separate_runs(tmp_path):
  starts, wanted = [], []
  for seed in (1, 2):
    method = SoftPrompt(length=2)
    attached = method.attach(model(), nnx.Rngs(seed))
    path = trained_methods.export(tmp_path / f"{seed}.npz", attached, method)
    starts.append(initializers.FromFile(path=path))
    wanted.append(attached.encoder.prompt.prompt[...])
  bank = SoftPrompt(length=2, tasks=2, initializer=initializers.PerTask(initializers=starts))
  found = bank.attach(model(), nnx.Rngs(0)).encoder.prompt.prompt[...]
  np.testing.assert_array_equal(found, np.stack(wanted))


def test_another_backbone_is_refused_and_a_copy_in_bfloat16_is_not(tmp_path):
  path = trained_methods.export(
    tmp_path / "method.npz", SoftPrompt(length=2).attach(model(), nnx.Rngs(1)), SoftPrompt(length=2)
  )
  _, file = files.open_method(path, model().config)
  with pytest.raises(errors.ConfigError, match="other weights of a T5 of"):
    trained_methods.attached(model(1), file, where="method.npz")
  wider = model(mlp_width=6)
  with pytest.raises(
    errors.ConfigError, match=r"width 12, encoder_layers 2.*and this model is a T5"
  ):
    trained_methods.attached(wider, file, where="method.npz")
  graphdef, state = nnx.split(model())
  copied = nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf.astype("bfloat16"), state))
  trained_methods.attached(copied, file, where="method.npz")
  assert Backbone.of(stack_layers(model())) == Backbone.of(model())


def test_files_that_are_none_and_methods_that_are_none_are_refused(tmp_path):
  with pytest.raises(errors.ConfigError, match="no method file"):
    method_files.read(tmp_path / "absent.npz")
  (tmp_path / "text.npz").write_text("nothing")
  np.savez(tmp_path / "others.npz", a=np.zeros(2))
  for name in ("text.npz", "others.npz"):
    with pytest.raises(errors.DamagedCheckpoint, match="cannot be read as a method file"):
      method_files.read(tmp_path / name)
  with pytest.raises(errors.ConfigError, match=r"'os\.system'"):
    files.build({"class": "os.system", "fields": {"command": "ls"}})
  with pytest.raises(errors.ConfigError, match="Missing"):
    files.build({"class": "promot_jax.methods.prefix.Missing", "fields": {}})
  for other in ("methods.prompt.check_prompt_ids", "methods.copies.Copies", "cli.main.main"):
    with pytest.raises(errors.ConfigError, match="does not have"):
      files.build({"class": f"promot_jax.{other}", "fields": {}})
  method = SoftPrompt(length=2)
  trained_methods.export(tmp_path / "m.npz", method.attach(model(), nnx.Rngs(1)), method)
  with pytest.raises(errors.ConfigError, match="exists"):
    trained_methods.export(tmp_path / "m.npz", method.attach(model(), nnx.Rngs(1)), method)


def test_a_method_file_names_no_other_file_to_be_read(monkeypatch):
  """Initializers read what a path names, hubs included; first values are in the file itself."""
  start = {"class": "promot_jax.methods.%s.FromFile", "fields": {"path": "hf:somebody/model"}}

  def of(module):
    return {"class": start["class"] % module, "fields": dict(start["fields"])}

  prompt = {"class": "promot_jax.methods.prompt.SoftPrompt", "fields": {"length": 2}}
  for module in ("initializers", "prompt", "lora", "prefix_initializers"):
    given = {"class": prompt["class"], "fields": {**prompt["fields"], "initializer": of(module)}}
    assert files.build(given) == SoftPrompt(length=2)
    for wrong in (of(module), {**prompt, "fields": {"network": of(module)}}):
      with pytest.raises(errors.ConfigError, match="is no method"):
        files.build(wrong)
  with pytest.raises(errors.ConfigError, match="which method"):
    files.build("promot_jax.methods.prompt.SoftPrompt")


def test_every_setting_of_a_method_survives_its_description():
  for method in (*METHODS.values(), InfixTuning(length=4, depth="embedding")):
    described = files.describe(method)
    assert files.describe(files.build(described)) == described
