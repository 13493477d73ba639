"""The imports of every module, held to the rooms of the design."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ptlr_jax"

# What a module imports besides the standard library: third-party packages by
# their first name, the package's own modules in full. A new module, and a new
# arrow between two, has to be placed here.
TABLE = {
  "__init__": "",
  "errors": "",
  "cluster": "errors",
  "links": "",
  "group": "links",
  "processes": "cluster errors group links",
  "progress": "tqdm processes",
  # The command: no arrays, no losses.
  "main": (
    "ml_collections cluster command_line errors interruption processes "
    "progress seeds startup workdir data.loading"
  ),
  # Before JAX is imported, and right after.
  "startup": "jax compilation errors processes progress",
  "prepare": (
    "absl numpy command_line errors progress data.annotations data.builders "
    "data.layouts data.prepared data.reading data.simulated data.source "
    "data.summary"
  ),
  # From video files to features: nothing of training.
  "extract": (
    "absl command_line errors interruption lock progress startup storage "
    "writers features.extraction features.listing features.optical_flow "
    "features.output features.segments features.video"
  ),
  # A trained model on videos of one's own. No JAX before it is needed.
  "predict": (
    "absl command_line errors predicting_arrays predicting_files progress "
    "startup trained writers"
  ),
  "export": (
    "absl command_line errors exported progress storage trained writers"
  ),
  "report": "absl command_line errors progress reporting.whole startup writers",
  "reporting": "",
  "reporting.curves": "phases",
  "reporting.markup": "",
  "reporting.page": "plotly errors reporting.markup",
  "reporting.recorded": (
    "ml_collections artefacts data.annotations data.digest data.loading "
    "detection_files errors evaluation.files identity phases provenance "
    "writers"
  ),
  "reporting.scores": (
    "numpy data.annotations detection_map errors evaluation.ambiguity "
    "evaluation.bootstrap evaluation.instances evaluation.precision "
    "evaluation.protocols evaluation.scoring"
  ),
  "reporting.sections": (
    "evaluation.protocols evaluation.report reporting.markup "
    "reporting.recorded reporting.scores"
  ),
  "reporting.videos": (
    "numpy data.annotations detected errors predicting progress pseudo_labels "
    "reporting.recorded shares trained"
  ),
  "reporting.whole": (
    "data.annotations detected errors phases reporting.curves reporting.page "
    "reporting.recorded reporting.scores reporting.sections reporting.videos "
    "storage"
  ),
  "dump_cas": (
    "numpy command_line data.annotations data.loading errors phases pipeline "
    "progress pseudo_labels shares startup storage workdir"
  ),
  "predicting_files": (
    "data.annotations data.feature_files data.given data.label_tables "
    "data.text_files detected detection_files errors exported footage "
    "predicting progress storage trained"
  ),
  "predicting_arrays": (
    "numpy data.given detected errors exported footage predicting trained"
  ),
  "predicting": (
    "jax numpy data.annotations detected detection exported prediction "
    "pseudo_labels trained"
  ),
  "trained": (
    "jax ml_collections artefacts checkpoints data.description data.digest "
    "data.loading errors exported plugins provenance stages storage"
  ),
  "exported": (
    "ml_collections numpy safetensors data.feature_files data.geometry errors "
    "settings storage"
  ),
  "footage": (
    "numpy data.annotations data.geometry errors exported "
    "features.extraction features.listing features.output features.segments"
  ),
  "detected": "numpy detection_files errors storage timeline",
  "timeline": "matplotlib numpy storage",
  "tables": (
    "ml_collections ablations command_line interruption settings space storage "
    "table_formats workdir errors progress startup pipeline data.loading"
  ),
  # The paper's tables: figures in, text out.
  "ablations": "numpy scipy published",
  "published": "",
  "table_formats": "ablations",
  "command_line": (
    "absl ml_collections configurations curves errors interruption processes "
    "progress settings storage"
  ),
  "configurations": "",
  "interruption": "errors processes",
  "settings": (
    "ml_collections data.layouts data.source errors evaluation.ambiguity "
    "evaluation.protocols proposals upsampling"
  ),
  "evaluate": (
    "absl command_line writers errors evaluation.ambiguity "
    "evaluation.protocols evaluation.report evaluation.scoring"
  ),
  "workdir": (
    "ml_collections artefacts detection_map errors identity lock phases "
    "processes progress provenance storage writers"
  ),
  "lock": "errors processes progress",
  "provenance": (
    "errors identity progress writers data.annotations data.description "
    "data.digest"
  ),
  # Algorithm 1: no loss terms, no models, no file formats.
  "phases": "identity settings",
  "identity": "ml_collections settings",
  "artefacts": (
    "ml_collections errors identity label_files phases progress provenance "
    "settings storage writers"
  ),
  "shares": (
    "artefacts data.annotations data.sampling devices errors label_files "
    "phases processes storage"
  ),
  "seeds": (
    "ml_collections errors phases pipeline processes progress space together "
    "data.annotations"
  ),
  "pipeline": (
    "ml_collections artefacts checkpoints compilation curves data.annotations "
    "detection detection_files devices label_phases networks phases prediction "
    "processes progress provenance resident shares training writers"
  ),
  "label_phases": (
    "artefacts label_files labelling networks phases processes progress "
    "pseudo_labels shares data.annotations"
  ),
  "space": "checkpoints phases pipeline progress storage",
  "training": (
    "jax ml_collections numpy artefacts checkpoints errors interruption "
    "networks phases processes progress pseudo_labels resident shares stages "
    "train data.annotations data.batches data.streaming"
  ),
  "together": "jax numpy checkpoints errors processes training",
  "networks": (
    "jax ml_collections artefacts checkpoints data.annotations devices errors "
    "optimizer own_cas phases plugins prediction shares stages train"
  ),
  "own_cas": (
    "numpy data.annotations data.digest data.stored_arrays errors processes "
    "pseudo_labels"
  ),
  "plugins": "errors",
  # Training: no data sets, no loss terms; stages: no disk.
  "train": "flax jax numpy optax devices errors",
  "devices": "jax numpy errors native_output processes",
  "native_output": "",
  "resident": "jax numpy devices data.annotations",
  "compilation": "jax progress storage writers",
  "optimizer": "jax optax",
  "checkpoints": "jax orbax errors interruption processes progress storage",
  "stages": (
    "jax errors losses models.basnet models.layers refinement scale stage"
  ),
  "stage": "jax models.layers",
  "refinement": "flax jax losses models.ots models.rts stage",
  # Arrays on the device: no config, no data.
  "losses": "jax",
  "scale": "jax",
  "models": "",
  "models.products": "jax",
  "models.convolution": "jax models.products",
  "models.layers": "flax jax models.convolution models.products",
  "models.basnet": "flax jax models.layers",
  "models.ots": "flax jax models.basnet",
  "models.rts": "flax jax models.layers",
  # From a trained stage to labels and detections.
  "prediction": "jax numpy devices stages data.annotations data.batches",
  "labelling": "numpy pseudo_labels data.annotations",
  "detection": (
    "numpy detection_map proposals pseudo_labels data.annotations data.geometry"
  ),
  # NumPy alone.
  "pseudo_labels": "numpy",
  "upsampling": "numpy",
  "expansion": "numpy",
  "nms": "numpy expansion upsampling",
  "proposals": "numpy nms upsampling",
  "detection_map": (
    "numpy evaluation.ambiguity evaluation.instances evaluation.precision "
    "evaluation.protocols evaluation.ties"
  ),
  "writers": "errors processes storage",
  "curves": "errors event_files identity progress settings tracking writers",
  "event_files": "errors progress storage",
  "tracking": "wandb progress",
  "storage": "errors",
  "label_files": "numpy errors pseudo_labels storage",
  "detection_files": "processes storage",
  # Scoring of detections, ours or another's: NumPy, no models.
  "evaluation": "",
  "evaluation.protocols": "numpy",
  "evaluation.columns": "numpy data.text_files",
  "evaluation.instances": "numpy evaluation.columns evaluation.protocols",
  "evaluation.matching": "numpy evaluation.instances expansion",
  "evaluation.precision": (
    "numpy evaluation.instances evaluation.matching evaluation.protocols"
  ),
  "evaluation.ties": "numpy evaluation.matching evaluation.precision",
  "evaluation.ambiguity": (
    "numpy evaluation.instances evaluation.matching evaluation.protocols"
  ),
  "evaluation.bootstrap": "numpy evaluation.precision evaluation.protocols",
  "evaluation.false_positives": (
    "numpy evaluation.matching evaluation.precision"
  ),
  "evaluation.sensitivity": (
    "numpy evaluation.instances evaluation.precision evaluation.protocols"
  ),
  "evaluation.ceilings": (
    "numpy evaluation.instances evaluation.matching evaluation.precision "
    "evaluation.protocols"
  ),
  "evaluation.files": (
    "storage data.ambiguous data.layouts.wtalc data.text_files "
    "evaluation.columns evaluation.protocols"
  ),
  "evaluation.scoring": (
    "numpy detection_map errors data.ambiguous evaluation.ambiguity "
    "evaluation.bootstrap evaluation.ceilings evaluation.columns "
    "evaluation.false_positives evaluation.files evaluation.instances "
    "evaluation.precision evaluation.protocols evaluation.sensitivity"
  ),
  "evaluation.report": "detection_map evaluation.protocols",
  # Data: NumPy, no models.
  "data": "",
  "data.text_files": "",
  "data.geometry": "data.text_files",
  "data.annotations": "numpy errors data.geometry",
  "data.digest": "numpy data.annotations",
  "data.description": "data.annotations data.geometry",
  "data.given": (
    "numpy data.annotations data.feature_files data.geometry data.given_files "
    "data.stored_arrays data.text_files"
  ),
  "data.given_files": "numpy data.feature_files",
  "data.annotation_files": "data.text_files",
  "data.ambiguous": "data.text_files",
  "data.stored_arrays": "numpy",
  "data.object_arrays": "numpy data.stored_arrays",
  "data.feature_files": "numpy data.stored_arrays",
  "data.label_tables": "data.annotation_files data.text_files",
  "data.source": (
    "errors data.annotation_files data.feature_files data.geometry"
  ),
  # Layouts: what lies where. No data set, no options but those of reading.
  "data.layouts": (
    "errors data.source data.layouts.actionformer data.layouts.loose "
    "data.layouts.split_files data.layouts.wtalc"
  ),
  "data.layouts.actionformer": (
    "data.annotation_files data.feature_files data.geometry data.source "
    "data.text_files"
  ),
  "data.layouts.loose": (
    "data.annotation_files data.feature_files data.geometry data.label_tables "
    "data.source data.text_files"
  ),
  "data.layouts.split_files": (
    "data.annotation_files data.feature_files data.source data.text_files"
  ),
  "data.layouts.wtalc": (
    "numpy data.ambiguous data.annotation_files data.feature_files "
    "data.object_arrays data.source data.stored_arrays data.text_files"
  ),
  # From what a layout has to a data set.
  "data.facts": "data.annotation_files",
  "data.class_labels": ("data.annotation_files data.annotations data.source"),
  "data.reading": (
    "numpy errors data.annotation_files data.annotations data.class_labels "
    "data.digest data.facts data.feature_files data.geometry data.source "
    "data.text_files"
  ),
  "data.loading": (
    "ml_collections errors processes data.annotations data.digest "
    "data.layouts data.prepared data.reading data.simulated data.source "
    "evaluation.protocols"
  ),
  "data.summary": "numpy data.annotation_files data.annotations data.reading",
  # TFDS: written by one, read by the other.
  "data.builders": (
    "tensorflow_datasets errors data.annotations data.examples data.prepared "
    "data.sampling"
  ),
  "data.examples": (
    "numpy tensorflow_datasets data.annotations data.feature_files "
    "data.geometry"
  ),
  "data.prepared": (
    "numpy tensorflow_datasets errors data.annotations data.digest "
    "data.geometry data.source"
  ),
  # Batches.
  "data.sampling": "numpy",
  "data.packing": "numpy data.sampling",
  "data.batches": "numpy data.annotations data.packing data.sampling",
  "data.streaming": "grain data.batches",
  "data.simulated": "numpy data.annotations data.sampling",
  # Decoding and flow know no JAX; the network knows no video.
  "features": "",
  "features.video": "av numpy errors",
  "features.optical_flow": "cv2 numpy errors",
  "features.segments": ("numpy errors features.optical_flow features.video"),
  "features.workers": ("errors features.optical_flow features.segments"),
  "features.extraction": (
    "jax numpy errors features.i3d features.segments features.weights "
    "features.workers"
  ),
  "features.listing": "errors data.text_files features.video",
  "features.output": (
    "numpy errors storage data.geometry features.extraction features.segments"
  ),
  "features.i3d": "flax jax",
  "features.origins": "numpy errors features.i3d",
  "features.weight_files": (
    "numpy safetensors tensorflow torch errors features.origins storage"
  ),
  "features.weights": (
    "absl flax jax command_line errors features.origins features.weight_files "
    "progress storage"
  ),
  "features.beam": (
    "apache_beam command_line errors extract progress startup "
    "features.extraction features.listing features.optical_flow "
    "features.output features.segments"
  ),
}


def _name(path):
  """As in TABLE: a package's own file has the package's name."""
  *folders, last = path.relative_to(PACKAGE).with_suffix("").parts
  return ".".join([*folders, last] if last != "__init__" else folders or [last])


FILES = {_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def _own(node):
  """What `from ptlr_jax.a import b, c` names: modules, or the module a."""
  inside = node.module.removeprefix("ptlr_jax").removeprefix(".")
  for alias in node.names:
    full = f"{inside}.{alias.name}".removeprefix(".")
    yield full if full in FILES else inside or "__init__"


def _imports(nodes):
  """Names as in TABLE of all import statements."""
  found = set()
  for node in nodes:
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
      assert not [n for n in names if n.startswith("ptlr_jax")], (
        "modules are imported by `from ptlr_jax import name`"
      )
      found |= {name.partition(".")[0] for name in names}
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, "no relative imports"
      module = node.module or ""
      if module.partition(".")[0] == "ptlr_jax":
        found |= set(_own(node))
      else:
        found.add(module.partition(".")[0])
  return found - sys.stdlib_module_names


def _tree(name):
  return ast.parse(FILES[name].read_text())


def test_every_module_has_its_place_in_the_table():
  assert FILES.keys() == TABLE.keys()


@pytest.mark.parametrize("name", FILES)
def test_a_module_imports_what_its_room_may_and_the_table_says(name):
  came = _imports(ast.walk(_tree(name)))
  assert came == set(TABLE.get(name, "").split())


def _everything_behind(name, seen=None):
  """All that importing a module needs, by TABLE."""
  seen = set() if seen is None else seen
  for other in TABLE.get(name, "").split():
    if other not in seen:
      seen.add(other)
      _everything_behind(other, seen)
  return seen


@pytest.mark.parametrize(
  "name", [n for n in TABLE if n.startswith("data.")] + ["labelling"]
)
def test_data_needs_neither_jax_nor_models(name):
  behind = _everything_behind(name)
  assert not behind & {"jax", "flax", "optax", "orbax", "stages", "pipeline"}
  assert not [other for other in behind if other.startswith("models.")]


@pytest.mark.parametrize(
  "name", ["detection", "proposals", "detection_map", "evaluation.scoring"]
)
def test_detection_runs_without_jax(name):
  assert "jax" not in _everything_behind(name)


@pytest.mark.parametrize("name", ["losses", "scale", "stages", "train"])
def test_what_is_jitted_knows_no_config_no_data_and_no_disk(name):
  behind = _everything_behind(name)
  assert not behind & {"ml_collections", "absl", "orbax", "writers"}
  assert not [other for other in behind if other.startswith("data.")]


@pytest.mark.parametrize(
  ("package", "knows"),
  [
    ("orbax", {"checkpoints"}),
    ("grain", {"data.streaming"}),
    (
      "tensorflow_datasets",
      {"data.builders", "data.examples", "data.prepared"},
    ),
    # A checkpoint in its form is read by it, where it is installed.
    ("tensorflow", {"features.weight_files"}),
    ("torch", {"features.weight_files"}),
    ("safetensors", {"exported", "features.weight_files"}),
    ("matplotlib", {"timeline"}),
    ("av", {"features.video"}),
    ("cv2", {"features.optical_flow"}),
    ("apache_beam", {"features.beam"}),
  ],
)
def test_some_packages_are_known_to_few(package, knows):
  assert {n for n, row in TABLE.items() if package in row.split()} == knows


@pytest.mark.parametrize(
  ("name", "late"),
  [
    ("training", {"data.streaming"}),
    ("data.prepared", {"tensorflow_datasets"}),
    ("prepare", {"data.builders"}),
  ],
)
def test_what_few_runs_need_is_imported_where_it_is_needed(name, late):
  assert late == set(TABLE[name].split()) - _imports(_tree(name).body)


def test_no_module_imports_itself_through_others():
  assert not [name for name in TABLE if name in _everything_behind(name)]


def test_main_fits_a_page_and_imports_jax_only_when_it_must():
  assert len(FILES["main"].read_text().splitlines()) <= 80
  top = _imports(_tree("main").body)
  assert top == {
    *("ml_collections", "cluster", "command_line", "errors", "interruption"),
    *("processes", "workdir", "progress"),
  }
  behind = set().union(*(_everything_behind(name) for name in top))
  assert not behind & {"jax", "flax", "orbax"}


def _modules_after(code):
  """The names of sys.modules after running `code` in a process of its own."""
  done = subprocess.run(
    [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  return set(done.stdout.split())


def test_the_command_line_and_the_workdir_load_no_jax():
  loaded = _modules_after(
    "import ptlr_jax.cli.command_line, ptlr_jax.workdir.run_folder"
  )
  assert "ptlr_jax.workdir.run_folder" in loaded
  assert not loaded & {"jax", "flax", "orbax", "tensorflow"}
  assert not loaded & {"grain", "tensorflow_datasets"}


def test_the_whole_pipeline_loads_no_tensorflow():
  loaded = _modules_after(
    "import ptlr_jax.runs.pipeline, ptlr_jax.runs.dataset"
  )
  assert {"jax", "orbax.checkpoint"} <= loaded
  assert not loaded & {"tensorflow", "torch", "clu"}
  assert not loaded & {"grain", "tensorflow_datasets"}


def test_what_prepares_and_streams_loads_no_tensorflow():
  loaded = _modules_after(
    "import ptlr_jax.data.tfds.builders, ptlr_jax.data.streaming, ptlr_jax.prepare"
  )
  assert {"tensorflow_datasets", "grain"} <= loaded
  assert not loaded & {"tensorflow", "torch"}
