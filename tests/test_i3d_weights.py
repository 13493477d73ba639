"""Published I3D checkpoints, by their names and shapes, converted and read."""

import hashlib
import io
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from i3d_reference import BLOCKS, random_state, torch

from ptlr_jax.features import checkpoint_formats, i3d, published_names, weights
from ptlr_jax.runtime.errors import Damaged, InputError

safetensors: Any = pytest.importorskip(
  "safetensors.numpy", reason="safetensors is not installed"
)
LAYERS = ["Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3"] + [
  f"Mixed_{block}.{branch}"
  for block in BLOCKS
  for branch in ("b0", "b1a", "b1b", "b2a", "b2b", "b3b")
]
BRANCHES = {
  "b0": "Branch_0/Conv3d_0a_1x1",
  "b1a": "Branch_1/Conv3d_0a_1x1",
  "b1b": "Branch_1/Conv3d_0b_3x3",
  "b2a": "Branch_2/Conv3d_0a_1x1",
  "b2b": "Branch_2/Conv3d_0b_3x3",
  "b3b": "Branch_3/Conv3d_0b_1x1",
}


def _as_tensorflow(state, scope="RGB/inception_i3d/"):
  """The arrays of a state dict as the TensorFlow checkpoints name and shape
  them; their scale of the normalisation is 1 and not in them."""
  found = {
    "Logits/Conv3d_0c_1x1/conv_3d/w": _inside_out(
      state["logits.conv3d.weight"]
    ),
    "Logits/Conv3d_0c_1x1/conv_3d/b": state["logits.conv3d.bias"].numpy(),
  }
  for layer in LAYERS:
    block, _, branch = layer.partition(".")
    name = f"{block}/{BRANCHES[branch]}" if branch else block
    if layer == "Mixed_5b.b2b":  # the one that is named unlike the others
      name = "Mixed_5b/Branch_2/Conv3d_0a_3x3"
    found[f"{name}/conv_3d/w"] = _inside_out(state[f"{layer}.conv3d.weight"])
    for theirs, ours in (
      ("beta", "bias"),
      ("moving_mean", "running_mean"),
      ("moving_variance", "running_var"),
    ):
      array = state[f"{layer}.bn.{ours}"].numpy()
      found[f"{name}/batch_norm/{theirs}"] = array.reshape(1, 1, 1, 1, -1)
  return {scope + name: array for name, array in found.items()}


def _inside_out(weight):
  """[out,in,t,h,w] -> [t,h,w,in,out]."""
  return np.moveaxis(weight.numpy(), (0, 1), (4, 3))


@pytest.fixture(scope="module")
def states():
  return {
    s: random_state(n, classes=7, seed=n) for s, n in i3d.CHANNELS.items()
  }


@pytest.fixture(scope="module")
def files(states, tmp_path_factory):
  """{stream: a .pt file}, and the same converted."""
  folder = tmp_path_factory.mktemp("weights")
  for stream, state in states.items():
    torch.save(state, folder / f"{stream}.pt")
    weights.run_command(
      [
        "",
        f"--source={folder / stream}.pt",
        f"--output={folder / stream}.safetensors",
      ]
    )
  return folder


def _refused(action, *parts):
  """One line for each mistake, with these words in it."""
  with pytest.raises(InputError) as caught:
    action()
  assert len(caught.value.lines) == 1
  assert "\n" not in caught.value.lines[0]
  for part in parts:
    assert part in caught.value.lines[0]


def _assert_is(tree, state):
  """Every array of the tree is, to the bit, one of the state dict's."""
  flat = flatten_dict(tree, sep="/")
  kinds = {
    "conv/kernel": "conv3d.weight",
    "norm/scale": "bn.weight",
    "norm/bias": "bn.bias",
    "norm/mean": "bn.running_mean",
    "norm/var": "bn.running_var",
  }
  for layer in LAYERS:
    for ours, theirs in kinds.items():
      part = "batch_stats" if ours[-3:] in ("ean", "var") else "params"
      came = np.asarray(flat.pop(f"{part}/{layer.replace('.', '/')}/{ours}"))
      expected = state[f"{layer}.{theirs}"]
      if came.ndim == 5:
        expected = torch.from_numpy(_inside_out(expected))
      np.testing.assert_array_equal(came, expected.numpy())
  kernel = np.asarray(flat.pop("params/logits/kernel"))
  weight = state["logits.conv3d.weight"].numpy()
  np.testing.assert_array_equal(kernel, weight[:, :, 0, 0, 0].T)
  bias = np.asarray(flat.pop("params/logits/bias"))
  np.testing.assert_array_equal(bias, state["logits.conv3d.bias"].numpy())
  assert not flat


@pytest.mark.parametrize("stream", i3d.CHANNELS)
@pytest.mark.parametrize("end", ["pt", "safetensors"])
def test_every_array_of_a_state_dict_is_read_to_the_bit(
  files, states, stream, end
):
  tree = weights.load_weights(files / f"{stream}.{end}", stream)
  _assert_is(tree, states[stream])


def test_a_converted_file_says_where_it_comes_from(files):
  with safetensors.safe_open(files / "rgb.safetensors", "numpy") as file:
    notes = file.metadata()
  assert notes["stream"] == "rgb"
  assert notes["origin"] == "pytorch-i3d"
  assert notes["source"] == "rgb.pt"
  digest = hashlib.sha256((files / "rgb.pt").read_bytes()).hexdigest()
  assert notes["source_sha256"] == digest


def test_the_converter_tells_digest_stream_and_origin(
  files, capsys, monkeypatch
):
  digest = hashlib.sha256((files / "flow.pt").read_bytes()).hexdigest()
  monkeypatch.setitem(weights.PUBLISHED, digest, "as some people have it")
  weights.run_command(["", f"--source={files / 'flow.pt'}"])
  said = capsys.readouterr().out.splitlines()
  assert said[0] == (
    f"sha256 {digest}  {files / 'flow.pt'} (as some people have it)"
  )
  assert "flow stream, from pytorch-i3d, 287 arrays" in said[1]
  assert "7 classes" in said[1]
  assert len(said) == 2
  assert not (files / "flow.pt.safetensors").exists()


@pytest.mark.parametrize(
  ("stream", "scope"),
  [("rgb", "RGB/inception_i3d/"), ("flow", "Flow/inception_i3d/"), ("rgb", "")],
)
def test_tensorflow_s_names_and_shapes_give_the_same_network(
  states, tmp_path, stream, scope
):
  state = dict(states[stream])
  for layer in LAYERS:
    state[f"{layer}.bn.weight"] = torch.ones_like(state[f"{layer}.bn.weight"])
  arrays = _as_tensorflow(state, scope)
  assert len(arrays) == 4 * 57 + 2
  # Training leaves these beside the network, and they are no mistake.
  first = f"{scope}Conv3d_1a_7x7/conv_3d/w"
  arrays = {f"{first}/Momentum": np.zeros(3), **arrays, "step": np.int64(7)}
  np.savez(tmp_path / "arrays.npz", **arrays)
  _assert_is(weights.load_weights(tmp_path / "arrays.npz", stream), state)


def test_a_tensorflow_network_of_more_layers_is_refused(states):
  arrays = _as_tensorflow(states["rgb"])
  name = "RGB/inception_i3d/Mixed_6a/Branch_0/Conv3d_0a_1x1/conv_3d/w"
  arrays[name] = np.zeros((1, 1, 1, 3, 3))
  _refused(lambda: published_names.recognised("model.ckpt", arrays), name)
  del arrays[name]
  name = "RGB/inception_i3d/Mixed_5b/Branch_2/Conv3d_0a_3x3/batch_norm/beta"
  arrays[name.replace("0a_3x3", "0b_3x3")] = arrays.pop(name)
  with pytest.raises(InputError, match="1 are missing") as caught:
    published_names.recognised("model.ckpt", arrays)
  assert len(caught.value.lines) == 2


class _Old(pickle.Pickler):
  """Writes tensors as PyTorch 0.3 did."""

  def reducer_override(self, obj):
    if not isinstance(obj, torch.Tensor):
      return NotImplemented
    parts = (
      obj.storage(),
      obj.storage_offset(),
      tuple(obj.shape),
      obj.stride(),
    )
    return torch._utils._rebuild_tensor, parts


class _OldPickle:
  """The pickle module, but for tensors."""

  Pickler = _Old
  dumps, dump = pickle.dumps, pickle.dump


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_files_of_pytorch_0_3_are_read_without_counters_of_batches(
  states, tmp_path
):
  """As `rgb_imagenet.pt` was published: no zip archive, no counters."""
  state = {
    name: value
    for name, value in states["flow"].items()
    if not name.endswith("num_batches_tracked")
  }
  assert len(state) == 5 * 57 + 2
  path = tmp_path / "old.pt"
  torch.save(
    state,
    path,
    pickle_module=_OldPickle,
    _use_new_zipfile_serialization=False,
  )
  assert b"_rebuild_tensor_v2" not in path.read_bytes()[-100_000:]
  assert path.read_bytes()[:2] != b"PK"
  _assert_is(weights.load_weights(path, "flow"), states["flow"])


def test_state_dicts_of_parallel_training_and_in_checkpoints_are_read(
  states, tmp_path
):
  inside = {f"module.{name}": v.double() for name, v in states["flow"].items()}
  torch.save({"epoch": 3, "state_dict": inside}, tmp_path / "run.pth.tar")
  _assert_is(
    weights.load_weights(tmp_path / "run.pth.tar", "flow"), states["flow"]
  )


def test_weights_of_the_other_stream_are_refused(files):
  _refused(
    lambda: weights.load_weights(files / "rgb.safetensors", "flow"),
    "expected weights of the flow stream, came those of rgb",
    "--rgb_weights",
  )


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (
      lambda s: s.pop("Mixed_4c.b2b.bn.running_var"),
      "1 are missing: Mixed_4c.b2b.bn.running_var",
    ),
    (
      lambda s: s.update({"Mixed_4c.theta.weight": torch.zeros(3)}),
      "came 1 others: Mixed_4c.theta.weight",
    ),
    (
      lambda s: s.update({"Mixed_5c.b0.bn.bias": torch.zeros(12)}),
      "Mixed_5c.b0.bn.bias: expected the shape [384]",
    ),
    (
      lambda s: s.update(
        {"Conv3d_1a_7x7.conv3d.weight": torch.zeros(64, 1, 7, 7, 7)}
      ),
      "input channels 3 (rgb) or 2 (flow), came the shape [64, 1, 7, 7, 7]",
    ),
    (
      lambda s: s.update(
        {"Mixed_3b.b0.bn.weight": torch.full((64,), float("nan"))}
      ),
      "Mixed_3b.b0.bn.weight: expected finite numbers",
    ),
    (
      lambda s: s.update({"Mixed_3b.b0.bn.running_var": -torch.ones(64)}),
      "Mixed_3b.b0.bn.running_var: expected variances, came -1.0",
    ),
    (
      lambda s: s.update({"Mixed_3b.b0.bn.bias": torch.zeros(64).long()}),
      "Mixed_3b.b0.bn.bias: expected floating point numbers, came int64",
    ),
    (lambda s: s.clear(), "expected the I3D network of"),
  ],
)
def test_another_network_s_names_shapes_and_values_are_told(
  states, change, words
):
  state = dict(states["flow"])
  change(state)
  arrays = {name: value.numpy() for name, value in state.items()}
  _refused(lambda: published_names.recognised("w.pt", arrays), words, "w.pt")


def _saved(value):
  file = io.BytesIO()
  torch.save(value, file)
  return file.getvalue()


class _Code:
  """Unpickling it would make a folder."""

  def __reduce__(self):
    return Path.mkdir, (Path("made_by_a_pickle"),)


@pytest.mark.parametrize(
  ("content", "words"),
  [
    (b"", "it is empty"),
    (b"<!DOCTYPE html>\n<html>", "came b'<!DOCTYPE html>"),
    (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    (_saved({"a": torch.zeros(2)})[:-30], "came part of a file"),
    (_saved({"a": torch.zeros(2)}), "an array Conv3d_1a_7x7.conv3d.weight"),
    (_saved({"a": 3.0}), "expected a state dict of tensors"),
    (_saved([torch.zeros(2)]), "expected a state dict of tensors, came list"),
    (_saved({"a": _Code()}), "expected a state dict of tensors alone"),
    (pickle.dumps({"a": _Code()}), "expected a state dict of tensors alone"),
    (b"\x08" + bytes(7) + b"{nothing", "expected a safetensors file"),
  ],
)
def test_what_holds_no_weights_is_told_in_a_line(
  tmp_path, monkeypatch, content, words
):
  monkeypatch.chdir(tmp_path)
  path = tmp_path / "rgb_imagenet.pt"
  path.write_bytes(content)
  _refused(lambda: weights.load_weights(path, "rgb"), words, str(path))
  assert not (tmp_path / "made_by_a_pickle").exists()


def test_a_file_that_is_not_there_is_told(tmp_path):
  path = tmp_path / "none.pt"
  _refused(lambda: weights.load_weights(path, "rgb"), "No such file", str(path))


def test_a_converted_file_that_changed_or_was_cut_is_refused(files, tmp_path):
  data = (files / "flow.safetensors").read_bytes()
  path = tmp_path / "w.safetensors"
  path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
  with pytest.raises(Damaged, match="other values than its digest"):
    weights.load_weights(path, "flow")
  path.write_bytes(data[:1_000_000])
  _refused(lambda: weights.load_weights(path, "flow"), "cannot be read")
  version = data.replace(b'"version":"1"', b'"version":"9"')
  path.write_bytes(version)
  _refused(
    lambda: weights.load_weights(path, "flow"), "expected weights of version 1"
  )


def test_a_safetensors_file_of_the_published_names_is_read_too(
  states, tmp_path
):
  arrays = {name: value.numpy() for name, value in states["flow"].items()}
  safetensors.save_file(arrays, tmp_path / "theirs.safetensors")
  tree = weights.load_weights(tmp_path / "theirs.safetensors", "flow")
  _assert_is(tree, states["flow"])


def test_a_tensorflow_checkpoint_is_found_by_any_of_its_names(tmp_path):
  prefix = tmp_path / "model.ckpt"
  ends = (".index", ".meta", ".data-00000-of-00001")
  for end in ends:
    Path(f"{prefix}{end}").write_bytes(b"")
  for name in (tmp_path, prefix, *(Path(f"{prefix}{end}") for end in ends)):
    assert checkpoint_formats.tensorflow_prefix(name) == prefix
  assert checkpoint_formats.tensorflow_prefix(tmp_path / "other.ckpt") is None
  (tmp_path / "second.index").write_bytes(b"")
  _refused(
    lambda: checkpoint_formats.tensorflow_prefix(tmp_path),
    "expected one checkpoint, came 2",
    str(prefix),
  )


@pytest.mark.parametrize(
  ("package", "name", "words"),
  [
    ("torch", "rgb.pt", "torch is needed"),
    ("tensorflow", "model.ckpt", "tensorflow is needed"),
    ("safetensors", "rgb.safetensors", "pip install 'ptlr-jax[video]'"),
  ],
)
def test_a_package_that_is_not_installed_is_named(
  files, tmp_path, monkeypatch, package, name, words
):
  (tmp_path / "model.ckpt.index").write_bytes(b"")
  path = (tmp_path if package == "tensorflow" else files) / name
  monkeypatch.setitem(__import__("sys").modules, package, None)
  _refused(lambda: weights.load_weights(path, "rgb"), words, str(path))


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    ([], "--source: expected a file, got none"),
    (["--source=W"], "cannot be read"),
    (["--source=rgb.pt", "--output=W.npz"], "ends in .safetensors"),
    (
      ["--source=rgb.safetensors", "--output=rgb.safetensors"],
      "expected another file than --source",
    ),
    (
      ["--source=rgb.pt", "--output=rgb.pt/W.safetensors"],
      "expected a file that can be written",
    ),
    (["--sauce=W"], "Unknown command line flag"),
  ],
)
def test_a_mistake_on_the_command_line_is_told(
  files, monkeypatch, flags, words
):
  monkeypatch.chdir(files)
  _refused(lambda: weights.run_command(["", *flags]), words)


def test_a_converted_file_takes_the_place_of_an_older_one_at_once(
  files, tmp_path, monkeypatch
):
  output = tmp_path / "w.safetensors"
  shutil.copy(files / "rgb.safetensors", output)
  monkeypatch.setattr("os.fsync", lambda _: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    weights.run_command(
      ["", f"--source={files / 'flow.safetensors'}", f"--output={output}"]
    )
  assert output.read_bytes() == (files / "rgb.safetensors").read_bytes()
  assert list(tmp_path.iterdir()) == [output]
