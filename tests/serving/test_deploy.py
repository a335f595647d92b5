"""The files of serving/deploy, as far as they can be checked without containers and clusters."""

import json
import pathlib
import re
import subprocess
import sys

import httpx
import jsonschema
import kubernetes_validate
import promql_parser
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema

from serving import embedded_server
from serving.client import Client
from serving.exporting.sample_requests import sample_requests
from serving.tfserving import monitoring_config
from serving.tfserving.batching import parameters as batching_parameters
from serving.tfserving.models import model_config

DEPLOY = pathlib.Path(embedded_server.__file__).parent / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text())
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
DEPLOYMENT = yaml.safe_load((DEPLOY / "kubernetes" / "deployment.yaml").read_text())
POD = DEPLOYMENT["spec"]["template"]["spec"]
CONTAINER = POD["containers"][0]
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "ranking_model.json").read_text())
METRIC = re.compile(r":tensorflow:serving:\w+")
IMAGE = "tensorflow/serving:2.17.1"
WAYS = {"compose": COMPOSE["services"]["model"]["command"], "kubernetes": CONTAINER["args"]}


def expressions():
    """Every query of the dashboard with its variables filled in."""
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield target["expr"].replace("$__rate_interval", "5m").replace("$model", "ctr")


def test_compose_file_is_valid():
    schema = get_builtin_schema("vendor.compose-spec")
    jsonschema.validators.validator_for(schema)(schema).validate(COMPOSE)


@pytest.mark.parametrize("manifest", MANIFESTS, ids=[path.stem for path in MANIFESTS])
@pytest.mark.parametrize("kubernetes", ["1.29", "1.33"])
def test_manifests_are_valid(manifest, kubernetes):
    kubernetes_validate.validate(yaml.safe_load(manifest.read_text()), kubernetes, strict=True)


def test_kustomization_names_all_there_is():
    kustomization = yaml.safe_load((DEPLOY / "kustomization.yaml").read_text())
    assert sorted(kustomization["resources"]) == [f"kubernetes/{path.name}" for path in MANIFESTS]
    (generated,) = kustomization["configMapGenerator"]
    assert sorted(generated["files"]) == sorted(path.name for path in DEPLOY.glob("*.config"))
    used = [v["configMap"]["name"] for v in POD["volumes"] if "configMap" in v]
    assert used == [generated["name"]]


def test_batching_file_is_what_our_server_reads():
    parameters = batching_parameters.read(DEPLOY / "batching.config")
    assert parameters.max_batch_size == parameters.allowed_batch_sizes[-1]
    assert not parameters.pad_variable_length_inputs


def test_labels_claims_and_ports_meet():
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    manifests = {path.stem: yaml.safe_load(path.read_text()) for path in MANIFESTS}
    assert DEPLOYMENT["spec"]["selector"]["matchLabels"] == labels
    assert manifests["service"]["spec"]["selector"] == labels
    assert manifests["disruption-budget"]["spec"]["selector"]["matchLabels"] == labels
    claims = [
        v["persistentVolumeClaim"]["claimName"]
        for v in POD["volumes"]
        if len(v) == 2 and "persistentVolumeClaim" in v
    ]
    assert claims == [manifests["models-claim"]["metadata"]["name"]]
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert ports == {"grpc": 8500, "rest": 8501}
    for port in manifests["service"]["spec"]["ports"]:
        assert ports[port["targetPort"]] == port["port"]
    mounted = {mount["name"] for mount in CONTAINER["volumeMounts"]}
    assert mounted == {volume["name"] for volume in POD["volumes"]}


def test_both_ways_run_the_same_server():
    assert WAYS["compose"] == WAYS["kubernetes"]
    assert COMPOSE["services"]["model"]["image"] == CONTAINER["image"] == IMAGE


@pytest.mark.parametrize("way", WAYS)
def test_our_server_takes_the_same_flags(way):
    code = (
        "import sys; from absl import flags;"
        "from serving.tfserving import server_options as options;"
        "options.define_flags(); assert len(flags.FLAGS(sys.argv)) == 1;"
        "options.from_flags().check()"
    )
    subprocess.run([sys.executable, "-c", code, *WAYS[way]], cwd=DEPLOY.parents[1], check=True)


@pytest.mark.parametrize("way", WAYS)
def test_paths_in_flags_are_mounted_files(way):
    if way == "compose":
        mounts = [volume.split(":")[:2] for volume in COMPOSE["services"]["model"]["volumes"]]
        files = {target: DEPLOY / source for source, target in mounts if source.startswith("./")}
    else:
        files = {f"/config/{path.name}": path for path in DEPLOY.glob("*.config")}
    named = [flag.split("=")[1] for flag in WAYS[way] if "=/" in flag]
    assert len(named) == 2
    for path in named:
        assert files[path].is_file()


def test_paths_mounted_by_compose_exist():
    for name, service in COMPOSE["services"].items():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists(), (name, source)
            elif not source.startswith("$"):
                assert source in COMPOSE["volumes"]


def test_model_is_where_the_config_says():
    (model,) = model_config.models(model_config.read(DEPLOY / "models.config")).values()
    assert (model.name, model.base_path) == ("ctr", pathlib.Path("/models/ctr"))
    assert any(v.endswith(":/models/ctr:ro") for v in COMPOSE["services"]["model"]["volumes"])
    assert "/models/ctr" in [mount["mountPath"] for mount in CONTAINER["volumeMounts"]]
    for probe in ("startupProbe", "readinessProbe"):
        assert CONTAINER[probe]["httpGet"] == {"path": "/v1/models/ctr", "port": "rest"}


def test_limits_are_set():
    for resources in (
        CONTAINER["resources"],
        COMPOSE["services"]["model"]["deploy"]["resources"],
    ):
        assert set(resources["limits"]) >= {"memory"}
        assert len(resources) == 2


@pytest.fixture(scope="module")
def monitored(toy_version):
    with embedded_server.running(
        toy_version.parent, "ctr", monitoring_config_file=str(DEPLOY / "monitoring.config")
    ) as running:
        yield running


@pytest.fixture(scope="module")
def page(monitored, toy_data):
    """The Prometheus page of a server that has answered a request."""
    with Client(monitored.url) as client:
        client.score(sample_requests(toy_data, "test", 1)[0])
    return httpx.get(monitored.root + prometheus()["metrics_path"])


def prometheus():
    (job,) = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    return job


def test_prometheus_finds_the_page(page):
    path = monitoring_config.prometheus_path(DEPLOY / "monitoring.config")
    assert prometheus()["metrics_path"] == path
    annotations = DEPLOYMENT["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] == path
    assert prometheus()["static_configs"] == [{"targets": ["model:8501"]}]
    assert page.status_code == 200


def test_dashboard_asks_for_metrics_and_labels_that_exist(page):
    present = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", page.text, re.MULTILINE):
        endings = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        present |= {name + ending for ending in endings}
    labels = set(re.findall(r'(\w+)="', page.text)) | {"job"}
    asked = {name for query in expressions() for name in METRIC.findall(query)}
    assert len(asked) >= 8
    assert asked <= present
    for query in expressions():
        grouped = re.findall(r"by \(([^)]*)\)", query)
        matched = re.findall(r"(\w+)\s*!?=~?\s*\"", query)
        assert {name.strip() for group in grouped for name in group.split(",")} <= labels
        assert set(matched) <= labels


def test_queries_are_promql():
    for query in expressions():
        promql_parser.parse(query)


def test_dashboard_fits_its_grid_and_its_data_source():
    places = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not cells & places, panel["title"]
        places |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in COMPOSE["services"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "dashboards.yml").read_text())[
        "providers"
    ]
    assert (
        f"./grafana/dashboards:{provider['options']['path']}:ro"
        in COMPOSE["services"]["grafana"]["volumes"]
    )


def test_health_check_tells_a_served_model(monitored):
    kind, *command = COMPOSE["services"]["model"]["healthcheck"]["test"]
    assert kind == "CMD"
    port = monitored.root.rsplit(":", 1)[1]

    def check(model):
        script = command[-1].replace("8501", port).replace("models/ctr", f"models/{model}")
        return subprocess.run([*command[:-1], script], capture_output=True, check=False).returncode

    assert check("ctr") == 0
    assert check("other") != 0


def test_ports_are_published_to_this_machine_only():
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_images_are_pinned():
    for service in COMPOSE["services"].values():
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"])
