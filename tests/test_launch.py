"""What launch/ says, as far as it can be checked without what it is for."""

import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from tiny_config import ROOT

from ptlr_jax.runtime import cluster

LAUNCH = ROOT / "launch"
SCRIPTS = (
  *sorted(LAUNCH.glob("*.sh")),
  LAUNCH / "slurm.sbatch",
  ROOT / ".ci/run",
  ROOT / "tests/slurm_cluster.sh",
)
OLDEST, NEWEST = "1.31", "1.37"  # of Kubernetes


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_bash_and_executable(path):
  assert path.read_text().startswith("#!/usr/bin/env bash\n")
  assert os.access(path, os.X_OK)
  assert "set -euo pipefail" in path.read_text()
  done = subprocess.run(["bash", "-n", path], capture_output=True, text=True)
  assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["demo.sh", "local.sh"])
def test_scripts_become_the_program(name):
  text = (LAUNCH / name).read_text().replace("\\\n", " ")
  last = shlex.split(text.splitlines()[-1])
  assert last[:4] == ["exec", ".venv/bin/python", "-m", "ptlr_jax.main"]
  assert last[-1] == "$@"


def test_slurm_signals_the_tasks_and_not_srun():
  text = (LAUNCH / "slurm.sbatch").read_text()
  said = re.findall(r"^#SBATCH --(\S+)$", text, re.MULTILINE)
  assert "ntasks-per-node=1" in said
  assert "requeue" in said
  assert "open-mode=append" in said
  assert "signal=TERM@120" in said
  assert text.index("#SBATCH --signal") < text.index(
    "set -euo"
  )  # as sbatch has


def _repository(tmp_path: Path) -> Path:
  """A checkout whose .venv has a Python that says what it is given."""
  (tmp_path / "launch").mkdir()
  script = tmp_path / "launch/local.sh"
  script.write_text((LAUNCH / "local.sh").read_text())
  (tmp_path / "launch/setup.sh").write_text("")
  python = tmp_path / ".venv/bin/python"
  python.parent.mkdir(parents=True)
  python.write_text(
    '#!/bin/sh\necho "$JAX_PLATFORMS|$XLA_FLAGS"\nprintf "%s\\n" "$@"\n'
  )
  python.chmod(0o755)
  # With GPUs, to whoever asks.
  (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
  (tmp_path / "nvidia-smi").chmod(0o755)
  return script


def _local(script: Path, **environment: str) -> subprocess.CompletedProcess:
  path = f"{script.parents[1]}{os.pathsep}{os.environ['PATH']}"
  rest = {"DEVICES": "", "JAX_PLATFORMS": "", "XLA_FLAGS": "--one"}
  return subprocess.run(
    ["bash", script, "--workdir=a b"],
    env={**os.environ, "PATH": path, **rest, **environment},
    capture_output=True,
    text=True,
  )


def test_local_parts_the_cpu_into_devices(tmp_path):
  done = _local(_repository(tmp_path), DEVICES="8")
  assert done.stdout.splitlines() == [
    "cpu|--one --xla_force_host_platform_device_count=8",
    *("-m", "ptlr_jax.main", "--workdir=a b"),
  ]


def test_local_does_not_train_on_the_cpu_beside_gpus(tmp_path):
  script = _repository(tmp_path)
  done = _local(script)
  assert (done.returncode, done.stdout) == (2, "")
  assert "'.[cuda12]'" in done.stderr
  assert _local(script, JAX_PLATFORMS="cpu").stdout.startswith("cpu|--one\n")
  plugins = tmp_path / ".venv/lib/python3.12/site-packages/jax_plugins"
  (plugins / "xla_cuda12").mkdir(parents=True)
  assert _local(script).stdout.startswith("|--one\n")


def _objects() -> dict[str, dict]:
  text = (LAUNCH / "kubernetes.yaml").read_text()
  return {one["kind"]: one for one in yaml.safe_load_all(text)}


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("kind", ["Service", "PersistentVolumeClaim", "Job"])
def test_kubernetes_knows_every_field(kind, version):
  kubernetes_validate.validate(_objects()[kind], version, strict=True)


def test_the_schema_is_strict():
  job = _objects()["Job"]
  job["spec"]["template"]["spec"]["subDomain"] = "x"
  with pytest.raises(kubernetes_validate.ValidationError):
    kubernetes_validate.validate(job, OLDEST, strict=True)


def test_pods_find_each_other():
  service, job = _objects()["Service"], _objects()["Job"]
  name, spec = job["metadata"]["name"], job["spec"]
  pod = spec["template"]["spec"]
  (container,) = pod["containers"]
  environment = {one["name"]: one["value"] for one in container["env"]}
  count = spec["completions"]
  assert service["spec"]["clusterIP"] == "None"
  assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
  assert pod["subdomain"] == service["metadata"]["name"]
  assert spec["completionMode"] == "Indexed"
  assert spec["parallelism"] == count > 1
  (port,) = service["spec"]["ports"]
  for index in range(count):
    place = cluster.place({**environment, "JOB_COMPLETION_INDEX": str(index)})
    address = f"{name}-0.{pod['subdomain']}:{port['port']}"
    assert place == cluster.Place(count, address, index)


def test_pods_share_what_they_need():
  claim, job = _objects()["PersistentVolumeClaim"], _objects()["Job"]
  pod = job["spec"]["template"]["spec"]
  (container,) = pod["containers"]
  volumes = {one["name"]: one for one in pod["volumes"]}
  paths = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
  assert sorted(volumes) == sorted(paths.values())
  shared = volumes[paths["/shared"]]["persistentVolumeClaim"]
  assert shared["claimName"] == claim["metadata"]["name"]
  assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
  where = [*container["args"][1:], *(one["value"] for one in container["env"])]
  assert len([one for one in where if "/shared/" in one]) == 3
  assert container["command"] == ["python", "-m", "ptlr_jax.main"]


def test_pods_begin_anew_together():
  spec = _objects()["Job"]["spec"]
  pod = spec["template"]["spec"]
  rules = spec["podFailurePolicy"]["rules"]
  assert pod["restartPolicy"] == "Never"  # else there may be no such policy
  assert {rule["action"] for rule in rules} == {"Ignore"}
  (codes,) = (r["onExitCodes"] for r in rules if "onExitCodes" in r)
  assert codes["values"] == [143]
  assert codes["containerName"] == pod["containers"][0]["name"]
  assert spec["backoffLimit"] >= 5 * spec["completions"]
  assert pod["terminationGracePeriodSeconds"] >= 30


def _dockerfile() -> list[tuple[str, str]]:
  """[(instruction, the rest of it)] with continued lines joined."""
  text = (LAUNCH / "Dockerfile").read_text()
  lines = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.M))
  pairs = [line.split(None, 1) for line in lines.splitlines() if line]
  return [(word, rest) for word, rest in pairs]


def test_the_image_installs_what_pyproject_declares():
  steps = _dockerfile()
  declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  arguments = dict(rest.split("=") for word, rest in steps if word == "ARG")
  assert arguments["CUDA"] in declared["optional-dependencies"]
  (base,) = (rest for word, rest in steps if word == "FROM")
  version = re.match(r"python:3\.(\d+)-", base)
  assert version
  oldest = declared["requires-python"].removeprefix(">=3.")
  assert int(version[1]) >= int(oldest)
  for _, rest in (s for s in steps if s[0] == "COPY"):
    *sources, target = rest.split()
    for source in sources:
      assert (ROOT / source).exists()
      if (ROOT / source).is_dir():
        assert target == source
  copied = " ".join(rest for word, rest in steps if word == "COPY").split()
  needs = (*declared["license-files"], declared["readme"], "pyproject.toml")
  assert {*needs, "ptlr_jax", "configs"} <= {*copied}
  runs = [rest for word, rest in steps if word == "RUN"]
  assert "-r launch/requirements.txt" in runs[0]
  installs = [r for run in runs for r in run.split("&&") if "pip install" in r]
  assert all("launch/requirements.txt" in one for one in installs)
  assert ".${CUDA:+[$CUDA]}" in runs[1]


def test_the_image_runs_the_program_as_no_root():
  steps = _dockerfile()
  users = [rest for word, rest in steps if word == "USER"]
  assert users == ["1000"]  # a number: as runAsNonRoot asks for
  assert steps[-1] == ("ENTRYPOINT", '["python", "-m", "ptlr_jax.main"]')
  pod = _objects()["Job"]["spec"]["template"]["spec"]
  assert str(pod["securityContext"]["runAsUser"]) == users[0]


@pytest.mark.parametrize("cuda", ["cuda12", ""])
def test_the_commands_of_the_image_are_sh(cuda, tmp_path):
  for name in ("pip", "useradd", "chmod"):
    (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@"\n')
    (tmp_path / name).chmod(0o755)
  said = ""
  for command in (rest for word, rest in _dockerfile() if word == "RUN"):
    said += subprocess.run(
      ["sh", "-euc", command],
      env={"PATH": f"{tmp_path}:/usr/bin:/bin", "CUDA": cuda},
      capture_output=True,
      text=True,
      check=True,
    ).stdout
  assert said.count("pip install") == (3 if cuda else 2)
  assert ("jax[cuda12]" in said) == bool(cuda)
  assert (f"-e .[{cuda}]" if cuda else "-e .\n") in said
