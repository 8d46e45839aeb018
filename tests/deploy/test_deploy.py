"""`deploy/`: every manifest fits Kubernetes' schemas, every query parses, and the names in them fit each other."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import promql_parser
import pytest
import typer
import yaml
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from homomorph.models.config import CompactConfig, ModelConfig
from homomorph.models.morph import MorphModel
from homomorph.runs.run import save_model
from homomorph_cli.main import app
from homomorph_export.exporter import export_run
from homomorph_export.serving.distribution import environment, find_distribution, link_backends
from homomorph_export.serving.guard import build_guard
from homomorph_export.serving.ports import choose_ports
from homomorph_export.serving.server import TritonServer

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib  # type: ignore[import-not-found, no-redef]

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
VERSIONS = ("1.29", "1.37")
"""Schemas of these, the oldest and the newest that the manifests are meant for."""
BASE = sorted(file for file in (KUBERNETES / "base").glob("*.yaml") if file.name != "kustomization.yaml")
RULES = yaml.safe_load((DEPLOY / "prometheus" / "rules.yaml").read_text())
DASHBOARD = json.loads((DEPLOY / "grafana" / "homomorph.json").read_text())
ADAPTER = yaml.safe_load((DEPLOY / "prometheus" / "adapter-values.yaml").read_text())
PAGE = (DEPLOY.parent / "docs" / "deployment.md").read_text()
SCRAPE = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())

GUARD = "/guard/librequest_guard.so"
"""Where containers have the request guard."""
PROTOCOLS = {"model-repository", "shared-memory", "trace", "logging"}
"""Calls that need a key."""
MINIMUM = (26, 7)
"""Oldest release of Triton that NVIDIA's bulletins of 2026 do not tell to update."""

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl, which builds overlays, is missing")


def built(overlay: str) -> list[dict[str, Any]]:
    command = ["kubectl", "kustomize", str(KUBERNETES / overlay)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return list(yaml.safe_load_all(result.stdout))


def release(text: str) -> tuple[int, int]:
    """Return the release of the one image of Triton in a text."""
    ((year, month),) = re.findall(r"nvcr\.io/nvidia/tritonserver:(\d+)\.(\d+)-py3\b", text)
    return int(year), int(month)


def the(kind: str, documents: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = (document for document in documents if document["kind"] == kind)
    return found


def rules(kind: str) -> dict[str, str]:
    return {rule[kind]: rule["expr"] for group in RULES["groups"] for rule in group["rules"] if kind in rule}


def queries() -> Iterator[str]:
    yield from rules("record").values()
    yield from rules("alert").values()
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield target["expr"].replace("$namespace", "homomorph")


def metrics(query: str) -> set[str]:
    """Return what Triton counts and what the rules record, as far as a query names it."""
    return set(re.findall(r"\b(?:nv|homomorph)_\w+", query))


@pytest.mark.parametrize("file", BASE, ids=lambda file: file.stem)
@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_fit_the_schemas(file: Path, version: str) -> None:
    manifest = yaml.safe_load(file.read_text())
    if manifest["kind"] == "Deployment":  # kustomize adds what it selects
        manifest["spec"]["selector"] = {"matchLabels": {}}
    kubernetes_validate.validate(manifest, version, strict=True)


def test_what_does_not_fit_is_found() -> None:
    manifest = yaml.safe_load((KUBERNETES / "base" / "service.yaml").read_text())
    manifest["spec"]["ports"][0]["targetPrt"] = "grpc"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, VERSIONS[0], strict=True)


def test_every_file_is_used() -> None:
    kustomization = yaml.safe_load((KUBERNETES / "base" / "kustomization.yaml").read_text())
    assert sorted(kustomization["resources"]) == [file.name for file in BASE]


@needs_kubectl
@pytest.mark.parametrize("overlay", ["base", "overlays/gpu"])
@pytest.mark.parametrize("version", VERSIONS)
def test_what_kustomize_builds_fits_the_schemas(overlay: str, version: str) -> None:
    for document in built(overlay):
        kubernetes_validate.validate(document, version, strict=True)


@needs_kubectl
def test_names_within_the_manifests_fit_each_other() -> None:
    documents = built("base")
    deployment, service = the("Deployment", documents), the("Service", documents)
    template = deployment["spec"]["template"]
    (container,) = template["spec"]["containers"]
    labels = template["metadata"]["labels"].items()
    assert service["spec"]["selector"].items() <= labels
    assert the("PodDisruptionBudget", documents)["spec"]["selector"]["matchLabels"].items() <= labels
    assert the("HorizontalPodAutoscaler", documents)["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {port["targetPort"]: port["port"] for port in service["spec"]["ports"]} == {"grpc": ports["grpc"]}
    assert template["metadata"]["annotations"]["prometheus.io/port"] == str(ports["metrics"])
    assert template["spec"]["serviceAccountName"] == the("ServiceAccount", documents)["metadata"]["name"]
    assert container["envFrom"][0]["configMapRef"]["name"] == the("ConfigMap", documents)["metadata"]["name"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in template["spec"]["volumes"]
    }


def test_triton_knows_every_argument() -> None:
    """Of the release that nvidia-pytriton carries; later ones have them too."""
    template = yaml.safe_load((KUBERNETES / "base" / "deployment.yaml").read_text())["spec"]["template"]
    distribution = find_distribution()
    command = [str(distribution / "bin" / "tritonserver"), "--help"]
    result = subprocess.run(
        command, env=environment(distribution), capture_output=True, text=True, timeout=60, check=False
    )
    known = set(re.findall(r"^ *(--[\w-]+)", result.stdout + result.stderr, re.MULTILINE))
    used = {word.partition("=")[0] for word in template["spec"]["containers"][0]["args"]}
    assert not used - known


@needs_kubectl
def test_clients_of_a_pod_may_only_ask_for_morphs() -> None:
    (container,) = the("Deployment", built("base"))["spec"]["template"]["spec"]["containers"]
    assert "--allow-http=false" in container["args"]
    assert "--grpc-restricted-protocol=@RESTRICTED" in container["args"]
    names = [variable["name"] for variable in container["env"]]
    assert names.index("CONTROL_KEY") < names.index("RESTRICTED"), "a value may name only variables before it"
    values = {variable["name"]: variable.get("value") for variable in container["env"]}
    protocols, _, key = values["RESTRICTED"].partition(":")
    assert set(protocols.split(",")) == PROTOCOLS
    assert key == "homomorph-control=$(CONTROL_KEY)"
    assert {"name": "CONTROL_KEY", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}} in container["env"]


def read(name: str) -> dict[str, Any]:
    """Read a manifest of `base` as it is written."""
    manifest: dict[str, Any] = yaml.safe_load((KUBERNETES / "base" / f"{name}.yaml").read_text())
    return manifest


def test_only_chosen_namespaces_reach_the_pods() -> None:
    policy = read("networkpolicy")["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert policy["podSelector"] == {}
    opened = {rule["ports"][0]["port"]: rule["from"] for rule in policy["ingress"]}
    assert set(opened) == {8001, 8002}
    assert all(list(peer) == ["namespaceSelector"] for peers in opened.values() for peer in peers)
    assert all(peer["namespaceSelector"]["matchLabels"] for peers in opened.values() for peer in peers)
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {53, 443}


def test_the_service_has_morphs_alone() -> None:
    assert [port["name"] for port in read("service")["spec"]["ports"]] == ["grpc"]


def test_the_image_is_of_a_release_without_the_known_faults() -> None:
    (image,) = read("kustomization")["images"]
    assert release(f"{image['name']}:{image['newTag']}") >= MINIMUM


def test_pods_have_bounds_on_memory_and_disk() -> None:
    spec = read("deployment")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    for kind in ("requests", "limits"):
        assert {"memory", "ephemeral-storage"} <= set(container["resources"][kind])
    assert all("sizeLimit" in volume["emptyDir"] for volume in spec["volumes"] if "emptyDir" in volume)


def test_pods_insist_on_the_request_guard() -> None:
    spec = read("deployment")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    (mount,) = (mount for mount in container["volumeMounts"] if mount["name"] == "guard")
    (volume,) = (volume for volume in spec["volumes"] if volume["name"] == "guard")
    assert {"name": "LD_PRELOAD", "value": f"{mount['mountPath']}/librequest_guard.so"} in container["env"]
    assert volume["configMap"] == {"name": "homomorph-guard"}, "not an optional one"
    assert "create configmap homomorph-guard --from-file=librequest_guard.so" in PAGE


@pytest.mark.server
@pytest.mark.parametrize("guarded", [True, False], ids=["guard", "no guard"])
def test_a_pods_arguments_want_the_request_guard(tmp_path: Path, guarded: bool) -> None:
    """Triton starts with the pod's arguments and environment, and only where the guard is loaded."""
    (container,) = read("deployment")["spec"]["template"]["spec"]["containers"]
    (tmp_path / "repository" / "morph" / "1").mkdir(parents=True)
    config = 'backend: "python" max_batch_size: 8 output [{ name: "Y" data_type: TYPE_FP32 dims: [1] }]'
    (tmp_path / "repository" / "morph" / "config.pbtxt").write_text(config)
    (tmp_path / "repository" / "morph" / "1" / "model.py").write_text("class TritonPythonModel: pass")
    ports = choose_ports("127.0.0.1", {"grpc": None, "metrics": None})
    distribution = find_distribution()
    variables = {variable["name"]: variable.get("value", "a-pods-id") for variable in container["env"]}
    variables["RESTRICTED"] = variables["RESTRICTED"].replace("$(CONTROL_KEY)", variables["CONTROL_KEY"])
    (tmp_path / "backends").mkdir()
    link_backends(distribution, tmp_path / "backends")
    guard = build_guard()
    assert guard is not None
    variables["LD_PRELOAD"] = str(guard if guarded else tmp_path / "librequest_guard.so")
    log = tmp_path / "log"
    server = subprocess.Popen(
        [
            *(str(distribution / "bin" / "tritonserver"), f"--backend-directory={tmp_path / 'backends'}"),
            *(word.replace("$(MODEL_REPOSITORY)", str(tmp_path / "repository")) for word in container["args"]),
            *("--grpc-address=127.0.0.1", f"--grpc-port={ports['grpc']}"),
            *("--metrics-address=127.0.0.1", f"--metrics-port={ports['metrics']}"),
        ],
        env=environment(distribution) | variables,
        stdout=log.open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,  # a process group of its own, with the model's process
    )
    try:
        while server.poll() is None and "Started Metrics Service" not in log.read_text():
            time.sleep(0.1)
        assert (server.poll() is None) == guarded, log.read_text()
        if guarded:
            with InferenceServerClient(f"127.0.0.1:{ports['grpc']}") as triton:
                assert triton.is_model_ready("morph")
                with pytest.raises(InferenceServerException, match="restricted"):
                    triton.get_model_repository_index()
                key = {"triton-grpc-protocol-homomorph-control": "a-pods-id"}
                assert triton.get_model_repository_index(headers=key).models
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


PAGES = [DEPLOY.parent / "README.md", *sorted((DEPLOY.parent / "docs").rglob("*.md"))]


@pytest.mark.parametrize(
    "command",
    [
        command
        for page in PAGES
        for command in re.findall(r"\bdocker run\b(?! --shm).*", re.sub(r"\\\n\s*", "", page.read_text()))
    ],
)
def test_docker_opens_a_server_to_this_machine_and_for_morphs_alone(command: str) -> None:
    published = re.findall(r"\s(?:-p|--publish)[ =]?(\S+)", command)
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert not re.search(r"\s(?:-P|--publish-all|--net|--network)\b", command)
    assert release(command) >= MINIMUM
    assert "--allow-http=false" in command
    assert "--grpc-restricted-protocol=@RESTRICTED" in command
    (restricted,) = re.findall(r" -e RESTRICTED=(\S+?):homomorph-control=\$\(", command)
    assert set(restricted.split(",")) == PROTOCOLS
    # Unlike `-v`, this mount makes Docker refuse a file that does not exist.
    assert f'--mount type=bind,source="$PWD/librequest_guard.so",target={GUARD},readonly' in command
    assert re.search(rf'\benv LD_PRELOAD="?{GUARD}\b', command)


def test_every_page_with_docker_is_read() -> None:
    assert sum(page.read_text().count("docker run --rm") for page in PAGES) == 3


@needs_kubectl
def test_pods_answer_what_is_on_its_way_before_they_end() -> None:
    spec = the("Deployment", built("base"))["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    wait_s = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    (exit_s,) = (int(word.partition("=")[2]) for word in container["args"] if word.startswith("--exit-timeout-secs="))
    assert spec["terminationGracePeriodSeconds"] > wait_s + exit_s


@needs_kubectl
def test_the_gpu_overlay_asks_for_one() -> None:
    base, gpu = (
        the("Deployment", built(overlay))["spec"]["template"]["spec"]["containers"][0]
        for overlay in ("base", "overlays/gpu")
    )
    assert gpu["resources"]["limits"] == {**base["resources"]["limits"], "nvidia.com/gpu": "1"}
    assert gpu["args"] == base["args"]


@pytest.mark.parametrize("query", list(queries()))
def test_queries_parse(query: str) -> None:
    promql_parser.parse(query)


def test_a_query_that_does_not_parse_is_found() -> None:
    with pytest.raises(ValueError, match="unclosed"):
        promql_parser.parse("sum by (pod (rate(x[1m]))")


def test_the_autoscalers_metric_is_recorded_and_brought() -> None:
    autoscaler = yaml.safe_load((KUBERNETES / "base" / "autoscaler.yaml").read_text())
    (metric,) = autoscaler["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert "by (namespace, pod)" in rules("record")[name]
    (rule,) = ADAPTER["rules"]["custom"]
    assert rule["seriesQuery"].partition("{")[0] == name
    promql_parser.parse(
        rule["metricsQuery"].replace("<<.GroupBy>>", "pod").replace("<<.Series>>{<<.LabelMatchers>>}", name)
    )


def test_alerts_fire_only_beyond_what_the_autoscaler_keeps() -> None:
    autoscaler = yaml.safe_load((KUBERNETES / "base" / "autoscaler.yaml").read_text())
    target = float(autoscaler["spec"]["metrics"][0]["pods"]["target"]["averageValue"])
    assert float(rules("alert")["HomomorphQueues"].rpartition(">")[2]) > target


def test_prometheus_reads_the_rules_and_scrapes_what_asks_for_it() -> None:
    assert SCRAPE["rule_files"] == ["rules.yaml"]
    template = yaml.safe_load((KUBERNETES / "base" / "deployment.yaml").read_text())["spec"]["template"]
    assert template["metadata"]["annotations"]["prometheus.io/scrape"] == "true"
    (pods,) = (job for job in SCRAPE["scrape_configs"] if "kubernetes_sd_configs" in job)
    assert {rule.get("target_label") for rule in pods["relabel_configs"]} >= {"namespace", "pod"}


def test_compose_serves_what_kubernetes_does_and_its_files_exist() -> None:
    """Read, not run."""
    file = DEPLOY / "compose" / "compose.yaml"
    compose = yaml.safe_load(file.read_text())
    services = compose["services"]
    *others, guard = services["triton"]["volumes"]
    assert (guard["type"], guard["target"], guard["bind"]) == ("bind", GUARD, {"create_host_path": False})
    assert f"-o {Path(guard['source']).name} export/homomorph_export/serving/request_guard.c" in file.read_text()
    services["triton"]["volumes"] = others
    for service in services.values():
        mounted = [volume.split(":")[0] for volume in service.get("volumes", [])]
        assert all((file.parent / path).resolve().exists() for path in mounted), mounted
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert {config["source"] for config in service.get("configs", [])} <= compose["configs"].keys()
    configs = {name: yaml.safe_load(config["content"]) for name, config in compose["configs"].items()}
    assert configs["scrape"]["scrape_configs"][0]["static_configs"][0]["targets"] == ["triton:8002"]
    assert configs["dashboards"]["providers"][0]["options"]["path"] == services["grafana"]["volumes"][0].split(":")[1]

    kustomization = yaml.safe_load((KUBERNETES / "base" / "kustomization.yaml").read_text())
    image = kustomization["images"][0]
    assert services["triton"]["image"] == f"{image['name']}:{image['newTag']}"
    pod = yaml.safe_load((KUBERNETES / "base" / "deployment.yaml").read_text())["spec"]["template"]["spec"]
    ours, theirs = services["triton"]["command"][2], pod["containers"][0]["args"]
    for argument in theirs:
        if not argument.startswith(("--model-repository", "--grpc-max-connection")):
            assert argument in ours
    variables = {variable["name"]: variable.get("value", "") for variable in pod["containers"][0]["env"]}
    assert f" LD_PRELOAD={GUARD} exec tritonserver" in ours
    assert ours.startswith("RESTRICTED=" + variables["RESTRICTED"].replace("$(CONTROL_KEY)", "$$(cat"))

    recipe = (file.parent / "Dockerfile").read_text()
    copied = {name for line in re.findall(r"^COPY (?!--)(.*) \S+$", recipe, re.MULTILINE) for name in line.split()}
    assert all((DEPLOY.parent / name).exists() for name in copied)
    assert (
        set(
            tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"][
                "where"
            ]
        )
        <= copied
    )


def test_panels_have_their_own_places() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


@pytest.mark.server
def test_every_metric_is_one_that_triton_counts(tmp_path: Path) -> None:
    network = CompactConfig(
        feature_channels=16, widths=(8, 12, 16), encoder_blocks=(0, 0, 1), decoder_blocks=(0, 0, 1), branch_width=8
    )
    save_model(tmp_path / "run", MorphModel(ModelConfig(groups={"hair": ("red",)}, picture_size=32, network=network)))
    export_run(tmp_path / "run", tmp_path / "repository", onnx=False, threads=1)
    with TritonServer(tmp_path / "repository") as server:
        url = f"http://127.0.0.1:{server.ports['metrics']}/metrics"
        text = urllib.request.urlopen(url, timeout=10).read().decode()
    counted = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    used = set().union(*(metrics(query) for query in queries()))
    # Gauges of GPUs are there where a GPU is.
    missing = {name for name in used - counted - set(rules("record")) if not name.startswith("nv_gpu_")}
    assert not missing
    assert "nv_inference_queue_duration_us" in counted


@pytest.mark.parametrize("line", re.findall(r"^ *(homomorph .*)$", PAGE, re.MULTILINE))
def test_commands_of_the_page_exist(line: str) -> None:
    _, *words = shlex.split(line)
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        name, *words = words
        command = command.commands[name]
    command.make_context(name, words)


def test_files_that_the_page_names_exist() -> None:
    root = DEPLOY.parent
    for path in re.findall(r"\]\(([^)#:]+)", PAGE):
        assert (root / "docs" / path).exists(), path
    for path in re.findall(r"\bdeploy/[\w./-]+\w", PAGE):
        assert (root / path).exists() or path.endswith("/yours"), path
