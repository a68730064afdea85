"""Whether `promot eval` and `promot infer` attach the method, and what they refuse."""

import types

import pytest

from promot_jax.cli import flags
from promot_jax.cli.eval import bank_row, method_state, method_states
from promot_jax.errors import ConfigError
from promot_jax.experiments.checkpoint import Checkpoint
from promot_jax.methods.prompt import SoftPrompt


def tuned_checkpoint(method) -> Checkpoint:
  return Checkpoint(name="model-4", start=None, method=method, stages=2, step=4)


def test_the_prompt_is_attached_for_the_tuned_task_and_where_asked_for():
  promot = tuned_checkpoint(SoftPrompt(length=3))
  states = [
    method_state(flag, promot, tuned=tuned)
    for flag in ("auto", "on", "off")
    for tuned in (True, False)
  ]
  assert states == ["attached", "detached", "attached", "attached", "detached", "detached"]


def test_both_is_without_the_method_and_with_it():
  promot = tuned_checkpoint(SoftPrompt(length=3))
  assert method_states("both", promot, tuned=True) == ["detached", "attached"]
  assert method_states("auto", promot, tuned=True) == ["attached"]
  with pytest.raises(ConfigError, match="no method to attach"):
    method_states("both", tuned_checkpoint(None), tuned=True)


def test_the_pretrained_model_and_fine_tuning_have_no_prompt_to_attach():
  pretrained = Checkpoint(name="pretrained", start=None)
  for checkpoint, words in (
    (pretrained, "the pretrained model"),
    (tuned_checkpoint(None), "checkpoint 'model-4'"),
  ):
    assert method_state("auto", checkpoint, tuned=True) == "none"
    with pytest.raises(ConfigError, match=f"{words} has no method to attach"):
      method_state("on", checkpoint, tuned=True)


def test_of_a_bank_of_prompts_one_has_to_be_named():
  made = types.SimpleNamespace(name="promot", tasks=["rte_1shot", "wmt14_en_fr_1shot"])
  bank = made, SoftPrompt(length=3, tasks=2)
  assert bank_row("wmt14_en_fr", *bank, "attached") == 1
  assert bank_row(None, *bank, "detached") == 0
  with pytest.raises(
    ConfigError, match=r"SoftPrompt for each of rte, wmt14_en_fr; .*--attach_task=rte"
  ):
    bank_row(None, *bank, "attached")
  with pytest.raises(ConfigError, match="there are rows of rte, wmt14_en_fr"):
    bank_row("cb", *bank, "attached")


@pytest.mark.parametrize(
  "arguments",
  [
    ["train", "--seed=x"],
    ["eval", "--limit=0"],
    ["eval", "--prompt=maybe"],
    ["infer"],
    ["inspect"],
    ["report"],
  ],
)
def test_a_wrong_flag_is_one_sentence_that_points_to_the_help(arguments):
  with pytest.raises(ConfigError, match=f"See promot {arguments[0]} --help") as error:
    flags.parse(arguments)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("command", [["eval"], ["infer", "--input=a"]])
def test_the_flags_of_earlier_versions_mean_the_same(command):
  earlier = flags.parse([*command, "--prompt=on", "--prompt_task=rte"]).values
  now = flags.parse([*command, "--attach=on", "--attach_task=rte"]).values
  assert (earlier.attach, earlier.attach_task) == (now.attach, now.attach_task) == ("on", "rte")
