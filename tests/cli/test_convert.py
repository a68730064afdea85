"""`promot convert`: every format leads back to the same bytes; what is wrong writes nothing."""

import json

import numpy as np
import pytest

from promot_jax import paths
from promot_jax.checkpoints import huggingface, prompt_files, step_reader
from promot_jax.checkpoints.store import Store
from promot_jax.cli.main import main
from promot_jax.methods import files
from promot_jax.methods.formats import Context
from promot_jax.methods.prompt import SoftPrompt
from tiny_models import config, tiny

CONFIG = config("t5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  leaves = paths.named_leaves(tiny("t5"))
  return huggingface.write_hf(tmp_path_factory.mktemp("source") / "hf", leaves, CONFIG)


def weights(folder) -> bytes:
  return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
  ("to", "flags", "place"),
  [
    ("npz", [], ""),
    ("step", ["--step=4"], "checkpoint_4"),
    ("t5x", ["--step=7"], ""),
    ("t5x", ["--step=7", "--t5x_layout=orbax"], "checkpoint_7"),
    ("t5x", ["--scanned"], ""),
    ("hf", [], ""),
  ],
)
def test_every_format_leads_back_to_the_same_bytes(folder, tmp_path, to, flags, place, capsys):
  middle = tmp_path / ("middle.npz" if to == "npz" else "middle")
  assert main(["convert", f"hf:{folder}", str(middle), f"--to={to}", *flags, "--json"]) == 0
  assert json.loads(capsys.readouterr().out)["parameters"] == sum(
    np.prod(leaf.shape) for leaf in huggingface.open_hf(folder).values()
  )
  back = ["convert", str(middle / place), str(tmp_path / "back"), "--to=hf"]
  assert main([*back, f"--model={folder}"]) == 0
  assert weights(tmp_path / "back") == weights(folder)


def test_the_shipped_weights_become_a_folder_that_describes_itself(tmp_path):
  assert main(["convert", "micro", str(tmp_path / "hf"), "--to=hf", "--dtype=bfloat16"]) == 0
  assert huggingface.config(str(tmp_path / "hf")).mlp_activations == ("relu", "linear")
  assert huggingface.open_hf(tmp_path / "hf")["token_embedder/embedding"].dtype.name == "bfloat16"


def test_the_vocabulary_is_filled_up_and_trimmed(folder, tmp_path):
  assert main(["convert", str(folder), str(tmp_path / "a"), "--to=hf", "--vocab_size=64"]) == 0
  assert huggingface.config(str(tmp_path / "a")).vocab_size == 64
  again = ["convert", str(tmp_path / "a"), str(tmp_path / "b"), "--to=hf", "--vocab_size=40"]
  assert main(again) == 0
  assert weights(tmp_path / "b") == weights(folder)


def test_a_prompt_is_written_alone(tmp_path, folder):
  prompt = np.arange(36, dtype=np.float32).reshape(3, 12)
  store = Store(tmp_path / "stage", report=lambda line: None)
  store.save(2, {"trainable/encoder/prompt/prompt": prompt}, {})
  store.close()
  step = str(store.path(2))
  assert main(["convert", step, str(tmp_path / "prompt.npy"), "--to=prompt"]) == 0
  np.testing.assert_array_equal(np.load(tmp_path / "prompt.npy"), prompt)
  assert main(["convert", step, str(tmp_path / "t5x"), "--to=t5x", "--step=7"]) == 0
  np.testing.assert_array_equal(prompt_files.read_prompt(tmp_path / "t5x"), prompt)
  assert main(["convert", step, str(tmp_path / "hf"), "--to=hf"]) == 2
  assert not (tmp_path / "hf").exists()
  peft = ["convert", step, str(tmp_path / "peft"), "--to=peft", f"--base_model={folder}"]
  assert main(peft) == 2  # the width is of a backbone that nobody named
  assert main([*peft, f"--model={folder}"]) == 0
  found = files.stored(tmp_path / "peft", SoftPrompt.formats, Context())
  np.testing.assert_array_equal(found.leaves["encoder/prompt/prompt"], prompt)


@pytest.mark.parametrize(
  ("flags", "code", "words"),
  [
    (["--model=t5_1_1_small"], 2, "is of another model than MODEL"),
    (["--model=t5_1_1_smal"], 2, "no published size"),
    (["--model=gpt2_small"], 2, "is a T5, and MODEL is a DecoderLMConfig"),
    (["--vocab_size=168"], 2, "is 128 rows more than"),
    (["--vocab_size=39", "--to=npz"], 2, "only --to=hf writes fewer"),
    (["--to=word"], 2, "--to=word is unknown; use one of hf, t5x, npz, step, method, peft"),
  ],
)
def test_what_cannot_be_converted_writes_nothing(folder, tmp_path, capsys, flags, code, words):
  to = [] if any(flag.startswith("--to") for flag in flags) else ["--to=hf"]
  assert main(["convert", str(folder), str(tmp_path / "out"), *to, *flags]) == code
  assert words in capsys.readouterr().err
  assert not list(tmp_path.iterdir())


def test_nan_is_refused_unless_it_is_allowed(folder, tmp_path, capsys):
  leaves = {name: np.array(leaf) for name, leaf in huggingface.open_hf(folder).items()}
  leaves["decoder/decoder_norm/scale"][3] = np.nan
  bad = huggingface.write_hf(tmp_path / "bad", leaves, CONFIG)
  convert = ["convert", str(bad), str(tmp_path / "out"), "--to=npz"]
  assert main(convert) == 74
  assert "decoder/decoder_norm/scale" in capsys.readouterr().err
  assert not (tmp_path / "out").exists()
  assert main([*convert, "--allow_nan"]) == 0


def test_an_unknown_backbone_must_be_named(folder, tmp_path, capsys):
  assert main(["convert", str(folder), str(tmp_path / "w.npz"), "--to=npz"]) == 0
  assert main(["convert", str(tmp_path / "w.npz"), str(tmp_path / "hf"), "--to=hf"]) == 2
  assert "width 12, layers 1 + 2" in capsys.readouterr().err


def test_an_output_that_exists_is_not_overwritten(folder, tmp_path, capsys):
  (tmp_path / "mine").write_text("x")
  assert main(["convert", str(folder), str(tmp_path / "mine"), "--to=npz"]) == 2
  assert main(["convert", str(folder), str(tmp_path), "--to=hf"]) == 2
  assert (tmp_path / "mine").read_text() == "x"
  assert capsys.readouterr().err.count("not overwritten") == 2


def test_steps_hold_what_training_would_have_saved(folder, tmp_path):
  assert main(["convert", str(folder), str(tmp_path / "run"), "--to=step"]) == 0
  assert step_reader.open_step(tmp_path / "run" / "checkpoint_0").keys() == (
    huggingface.open_hf(folder).keys()
  )
