"""`--init`: a checkpoint that cannot be used is refused before the model directory is made."""

import json

import numpy as np
import pytest

from promot_jax.checkpoints import huggingface, t5x_writer
from promot_jax.cli.main import main
from promot_jax.models import sizes
from promot_jax.networks import micro_model

TRAIN = ["train", "--gin_file=promot_rte_micro.gin"]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
  folder = tmp_path_factory.mktemp("init") / "hf"
  return huggingface.write_hf(folder, micro_model.weights(), micro_model.config())


def with_leaves(folder, changes, config=None):
  leaves = {**micro_model.weights(), **changes}
  return huggingface.write_hf(folder, leaves, config or micro_model.config())


def another_size(folder):
  wide = {
    f"{stack}/layers/{layer}/mlp/{name}/kernel": np.ones(shape, np.float32)
    for stack in ("encoder", "decoder")
    for layer in range(2)
    for name, shape in (("wi_0", (128, 192)), ("wi_1", (128, 192)), ("wo", (192, 128)))
  }
  return with_leaves(folder, wide, micro_model.config(mlp_width=192))


def another_vocabulary(folder):
  rows = micro_model.config().vocab_size + 200
  changes = {
    "token_embedder/embedding": np.ones((rows, 128), np.float32),
    "decoder/logits_dense/kernel": np.ones((128, rows), np.float32),
  }
  return with_leaves(folder, changes, sizes.micro(vocab_size=rows))


def not_finite(folder):
  kernel = np.array(micro_model.weights()["decoder/logits_dense/kernel"])
  kernel[3, 5] = np.nan
  return with_leaves(folder, {"decoder/logits_dense/kernel": kernel})


def not_finite_t5x(folder):
  kernel = np.array(micro_model.weights()["decoder/logits_dense/kernel"])
  kernel[3, 5] = np.inf
  leaves = {**micro_model.weights(), "decoder/logits_dense/kernel": kernel}
  return t5x_writer.write_t5x(folder, leaves, step=1)


def cut_off(folder):
  file = with_leaves(folder, {}) / "model.safetensors"
  file.write_bytes(file.read_bytes()[:-100])
  return folder


def another_architecture(folder):
  with_leaves(folder, {})
  content = json.loads((folder / "config.json").read_text())
  (folder / "config.json").write_text(json.dumps({**content, "model_type": "umt5"}))
  return folder


@pytest.mark.parametrize(
  ("make", "code", "words"),
  [
    (another_size, 2, ["mlp_width  256       192", "like no published size: width 128"]),
    (another_vocabulary, 2, ["vocab_size", "looks like micro, vocabulary"]),
    (another_architecture, 2, ["relative_bias", "shared", "per_layer"]),
    (not_finite, 74, ["decoder/logits_dense/kernel", "NaN"]),
    (not_finite_t5x, 74, ["decoder/logits_dense/kernel", "infinite"]),
    (cut_off, 74, ["is cut off"]),
  ],
)
def test_a_checkpoint_that_cannot_be_used_ends_with_its_code_and_writes_nothing(
  tmp_path, capsys, make, code, words
):
  folder = make(tmp_path / "hf")
  run = tmp_path / "run"
  assert main([*TRAIN, f"--init=local:{folder}", f"--model_dir={run}", "--quiet"]) == code
  said = capsys.readouterr().err
  assert all(word in said for word in words), said
  assert not run.exists()


def test_a_plan_says_whether_the_checkpoint_is_there(shipped, tmp_path, capsys):
  plan = [*TRAIN, f"--model_dir={tmp_path / 'run'}", "--dry_run"]
  assert main([*plan, f"--init=hf:{shipped}"]) == 0
  assert f"hf:{shipped} (readable)" in capsys.readouterr().out
  assert main([*plan, "--init=gs://bucket/checkpoint_5"]) == 0
  assert "remote: not looked at in a plan" in capsys.readouterr().out


def test_the_backbone_may_be_what_the_folder_says(shipped, tmp_path, capsys):
  command = [*TRAIN, "--gin_file=models/huggingface.gin", f"--init=hf:{shipped}", "--dry_run"]
  vocabulary = "--gin.VOCABULARY='t5'"
  assert main([*command, vocabulary, f"--model_dir={tmp_path / 'run'}"]) == 0
  assert f"vocabulary {micro_model.config().vocab_size}" in capsys.readouterr().out


def test_a_wrong_checkpoint_is_refused_before_a_pretrained_evaluation_makes_its_folder(
  tmp_path, capsys
):
  bad = another_size(tmp_path / "bad")
  command = ["eval", "--gin_file=promot_rte_micro.gin", "--checkpoint=pretrained", "--tasks=cb"]
  assert main([*command, f"--init=hf:{bad}", f"--model_dir={tmp_path / 'run'}"]) == 2
  assert "is of another model than MODEL" in capsys.readouterr().err
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  ("text", "code", "words"),
  [(None, 2, "There is no method file"), ("not a file of ours", 74, "method")],
)
def test_a_wrong_method_is_refused_before_an_evaluation_makes_its_folder(
  tmp_path, capsys, text, code, words
):
  file = tmp_path / "method.npz"
  if text is not None:
    file.write_text(text)
  command = ["eval", "--gin_file=promot_rte_micro.gin", f"--method={file}", "--tasks=rte"]
  assert main([*command, f"--model_dir={tmp_path / 'run'}"]) == code
  assert words in capsys.readouterr().err
  assert not (tmp_path / "run").exists()


def test_inspect_shows_a_hugging_face_folder_by_our_names(shipped, capsys):
  assert main(["inspect", "checkpoint", f"hf:{shipped}"]) == 0
  text = capsys.readouterr().out
  assert "Hugging Face checkpoint, 52 parameters; it looks like micro, vocabulary 624" in text
  assert "  decoder/decoder_norm/scale  [128]  float32" in text
