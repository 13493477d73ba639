"""Training steps against the PyTorch reading, in turn, as ratios.

python benchmarks/step_speed.py                       # CPU, 2 threads, float32
python benchmarks/step_speed.py --batch=16 --precision=bf16 --compile   # a GPU
python benchmarks/step_speed.py --memory              # peak memory of a step

Both have the same weights, shapes, losses and optimizer (`torch_reference`
is what one would write on top of BaSNet-pytorch); the default shapes are the
paper's widths: two streams of 1024, hidden 2048, T = 750, s = 1.25. Steps are
taken in turn and compared by medians; "floor" is the share of a step that its
FLOPs, as XLA counts them, would take at the rate of one large product. JAX uses
every core that the process may use: for 2 threads, `taskset` it to two.
"""

import functools
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).absolute().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from absl import app, flags  # noqa: E402

from benchmarks import torch_reference as reference  # noqa: E402
from configs import base  # noqa: E402
from ptlr_jax.data import sampling  # noqa: E402
from ptlr_jax.method.registry import STAGES  # noqa: E402
from ptlr_jax.training import train_step  # noqa: E402
from tests.torch_weights import to_torch  # noqa: E402

NETWORKS = flags.DEFINE_list("networks", ["ilg", "ots", "rts"], "to time")
FORMS = flags.DEFINE_list("forms", [], "of ours; (): all for float32 on a CPU")
BATCH = flags.DEFINE_integer("batch", 2, "videos")
SEGMENTS = flags.DEFINE_integer("segments", 750, "T")
WIDTH = flags.DEFINE_integer("width", 2048, "hidden channels")
FEATURES = flags.DEFINE_integer("features", 1024, "channels of a stream")
SCALE = flags.DEFINE_float("scale", 1.25, "s of the transformed branch")
STEPS = flags.DEFINE_integer("steps", 7, "timed steps of each")
THREADS = flags.DEFINE_integer("threads", 2, "of PyTorch on a CPU")
PRECISION = flags.DEFINE_enum(
  "precision", "float32", ["float32", "tf32", "bf16"], "of both"
)
COMPILE = flags.DEFINE_bool("compile", False, "time torch.compile too")
MEMORY = flags.DEFINE_bool("memory", False, "peak memory in place of time")
ONLY = flags.DEFINE_string("only", "", "measure the memory of this one")

CLASSES = 20
WIDTHS: tuple[str, ...] = ("rgb", "flow")
# What is switched on in each form; the last is what `auto` does on a CPU.
ARITHMETIC: dict[str, dict[str, Any]] = {
  "plain": {"model.convolution": "direct", "share_products": False},
  "shared products": {"model.convolution": "direct"},
  "winograd4": {"model.convolution": "winograd4"},
  "remat": {"remat": True},
  "default": {},
}

Step = Callable[[], Any]


def batch_of(network: str) -> dict[str, Any]:
  """A full batch of random features and labels, as `method.stage` has it."""
  rng = np.random.default_rng(0)
  shape = BATCH.value, SEGMENTS.value
  labels = rng.integers(0, CLASSES, BATCH.value)
  batch: dict[str, Any] = {
    "features": {
      name: rng.gamma(0.3, 1, (*shape, FEATURES.value)).astype(np.float32)
      for name in WIDTHS
    },
    "mask": np.ones(shape, bool),
  }
  if network == "ilg":
    options = base.get_config().ilg.scale
    size = sampling.scale_grid_size(SEGMENTS.value, SCALE.value, options)
    scale = {
      "scale": np.full(2, SCALE.value, np.float32),
      "scale_grid": np.zeros(size, np.float32),
    }
    return {**batch, "labels": np.eye(CLASSES)[labels].astype("f"), **scale}
  frames = rng.integers(0, CLASSES + 1, shape)
  targets = np.eye(CLASSES + 1, dtype=np.float32)[frames]
  return {**batch, "targets": targets, "selected": rng.random(shape) < 0.7}


def options_of(network: str, form: str) -> Any:
  """configs/base.py's options at the flags' sizes."""
  options = base.get_config()[network]
  name = "cas_width" if network == "ilg" else "width"
  changes = {f"model.{name}": WIDTH.value, **ARITHMETIC[form]}
  changes["model.precision"] = PRECISION.value
  if network != "ilg":
    changes.pop("share_products", None)
  options.update_from_flattened_dict(changes)
  return options


def initial(network: str) -> Any:
  """The parameters that all forms begin with."""
  stage = STAGES[network](CLASSES, options_of(network, "plain"))
  return stage.init(jax.random.key(0), dict.fromkeys(WIDTHS, FEATURES.value))


def ours(network: str, form: str, batch: Any) -> tuple[Step, float, float]:
  """A step of ptlr_jax, its FLOPs and the bytes of its temporaries."""
  stage = STAGES[network](CLASSES, options_of(network, form))
  tx = train_step.adam(1e-4)
  state = train_step.create_state(initial(network), tx)
  on_device, key = jax.device_put(batch), jax.random.key(1)
  frugal = ARITHMETIC[form].get("remat", False)
  program = train_step.make_step(stage.loss, tx, frugal=frugal)
  program = program.lower(state, on_device, key)
  program = program.compile()
  cost: Any = program.cost_analysis()
  memory: Any = program.memory_analysis()
  holder = [state]

  def step():
    holder[0], terms = program(holder[0], on_device, key)
    return float(terms["loss"])

  return step, cost["flops"], memory.temp_size_in_bytes


def theirs(network: str, batch: Any, compiled: bool) -> Step:
  """A step of the PyTorch reading."""
  place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
  fused, sizes = 2 * FEATURES.value, {"width": WIDTH.value}
  if network == "ilg":
    features = dict.fromkeys(WIDTHS, FEATURES.value)
    net: Any = reference.Ilg(features, CLASSES, cas_width=WIDTH.value)
  elif network == "ots":
    net = reference.NetworkOts(fused, CLASSES, **sizes)
  else:
    net = reference.NetworkRts(fused, CLASSES, **sizes)
  state = {n: torch.tensor(x) for n, x in to_torch(initial(network)).items()}
  net.load_state_dict(state)
  net.to(place)
  adam = reference.adam(net, 1e-4)

  def put(x: np.ndarray) -> torch.Tensor:
    tensor = torch.from_numpy(x)
    if tensor.ndim == 3:
      tensor = tensor.transpose(1, 2).contiguous()
    return tensor.to(place)

  features = {n: put(x) for n, x in batch["features"].items()}
  if network == "ilg":
    inputs: tuple[Any, ...] = (features, put(batch["labels"]), SCALE.value)
  else:
    both = torch.cat([features[name] for name in WIDTHS], dim=1)
    inputs = (both, put(batch["targets"]), put(batch["selected"]))
  if network == "ilg":

    def loss_of(*arguments):
      return reference.ilg_losses(net, *arguments)["total"]
  else:
    of = {"ots": reference.ots_loss, "rts": reference.rts_loss}[network]
    loss_of = functools.partial(of, net)
  loss_of = torch.compile(loss_of) if compiled else loss_of
  torch.backends.cuda.matmul.allow_tf32 = PRECISION.value != "float32"
  torch.backends.cudnn.allow_tf32 = PRECISION.value != "float32"
  half = PRECISION.value == "bf16"

  def step():
    with torch.autocast(place.type, torch.bfloat16, enabled=half):
      loss = loss_of(*inputs)
    return float(reference.update(adam, loss))

  return step


def matmul_rate() -> float:
  """FLOPs a second of one large product at the precision, median of 9."""
  from ptlr_jax.models.convolution import product

  rows, width = max(1500, BATCH.value * SEGMENTS.value), 2048
  x, kernel = jnp.ones((rows, width)), jnp.ones((width, width))
  if PRECISION.value == "bf16":
    x, kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
  repeat = 1 if jax.default_backend() == "cpu" else 50

  @jax.jit
  def many(x, kernel):
    return jax.lax.fori_loop(
      0,
      repeat,
      lambda i, y: product(y, kernel, PRECISION.value).astype(y.dtype),
      x,
    )

  jax.block_until_ready(many(x, kernel))
  times = []
  for _ in range(9):
    begun = time.perf_counter()
    jax.block_until_ready(many(x, kernel))
    times.append(time.perf_counter() - begun)
  return 2 * repeat * rows * width**2 / statistics.median(times)


def forms_of(network: str) -> list[str]:
  """Which of our forms to time."""
  on_cpu = jax.default_backend() == "cpu" and PRECISION.value == "float32"
  forms = FORMS.value or (
    ["plain", "shared products", "winograd4", "default"]
    if on_cpu
    else ["plain", "default"]
  )
  return [f for f in forms if f != "shared products" or network == "ilg"]


def compare(network: str, rate: float) -> None:
  """Times a network's steps in turn and prints their medians."""
  batch = batch_of(network)
  steps: dict[str, Step] = {"PyTorch": theirs(network, batch, False)}
  if COMPILE.value:
    steps["torch.compile"] = theirs(network, batch, True)
  flops: dict[str, float] = {}
  for form in forms_of(network):
    steps[form], flops[form], _ = ours(network, form, batch)
  losses = {name: step() for name, step in steps.items()}  # and warms up
  times: dict[str, list[float]] = {name: [] for name in steps}
  for _ in range(STEPS.value):
    for name, step in steps.items():
      begun = time.perf_counter()
      step()
      times[name].append(time.perf_counter() - begun)
  base_time = statistics.median(times["PyTorch"])
  print(f"\n{network}: first losses {losses}")
  print("| step | seconds | lowest, highest | PyTorch / it | TFLOP | floor |")
  print("|---|---|---|---|---|---|")
  for name, values in times.items():
    median = statistics.median(values)
    cells = [f"{median:.3f}", f"{min(values):.3f}, {max(values):.3f}"]
    cells.append(f"{base_time / median:.2f}")
    if name in flops:
      share = flops[name] / rate / median
      cells += [f"{flops[name] / 1e12:.3f}", f"{100 * share:.0f} %"]
    else:
      cells += ["", ""]
    print(f"| {name} | {' | '.join(cells)} |")


def _peak() -> float:
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def memory_of(network: str, name: str) -> None:
  """Prints the peak resident GB of three steps, in this process alone."""
  batch = batch_of(network)
  temporary = 0.0
  if name == "PyTorch":
    step = theirs(network, batch, False)
  else:
    step, _, temporary = ours(network, name, batch)
  before = _peak()
  for _ in range(3):
    step()
  print(f"| {network} | {name} | {_peak():.2f} | {before:.2f} |", end=" ")
  print(f"{temporary / 1e9:.2f} |" if temporary else "|")


def main(argv: list[str]) -> None:
  """Times, or weighs, what the flags name."""
  torch.set_num_threads(THREADS.value)
  if ONLY.value:
    memory_of(NETWORKS.value[0], ONLY.value)
    return
  print(f"{argv[0]}: {jax.devices()[0].device_kind}, JAX {jax.__version__},")
  print(f"torch {torch.__version__}, batch {BATCH.value}, {PRECISION.value}")
  if MEMORY.value:
    print("| network | step | peak GB | before it | XLA's temporaries |")
    print("|---|---|---|---|---|", flush=True)
    for network in NETWORKS.value:
      for name in ("PyTorch", *(FORMS.value or ["default", "remat"])):
        own = [f"--networks={network}", f"--only={name}"]
        subprocess.run([sys.executable, *sys.argv, *own], check=True)
    return
  rate = matmul_rate()
  print(f"one large product: {rate / 1e12:.3f} TFLOP/s")
  for network in NETWORKS.value:
    compare(network, rate)


if __name__ == "__main__":
  app.run(main)
