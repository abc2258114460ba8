"""Holds the Helm chart and the plain files of `deploy/kubernetes` to Kubernetes's schemas, and to what they must say.

`make chart-check` runs it, in an environment of its own. Where helm is installed, it lints and renders the chart. Where
it isn't, which is told, Go's templates render it, of which helm's are made, with a few functions written anew
(`render.go`): that shows that the templates are sound and what they give, but not what else helm looks at. No cluster
is asked either way: whether one takes the files is known only there.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/karat"
PLAIN = ROOT / "deploy/kubernetes"
# The oldest that knows what is used: a preStop that sleeps is on by default since then.
VERSIONS = ("1.30", "1.34")
RELEASE = {"Name": "reward", "Namespace": "models", "Service": "Helm"}
Manifest = dict[str, Any]


class Faulty(Exception):
    """What is wrong."""


@dataclass(frozen=True)
class Case:
    """Values beside the chart's own, and the kinds that come of them."""

    name: str
    values: dict[str, Any]
    kinds: tuple[str, ...] = ("Deployment", "PodDisruptionBudget", "Service")
    secrets: tuple[str, ...] = field(default=())


CASES = [
    Case("as it is", {}),
    Case(
        "keys and a certificate",
        {"keys": {"existingSecret": "team-keys"}, "tls": {"existingSecret": "team-tls"}},
        secrets=("team-keys", "team-tls"),
    ),
    Case(
        "keys of its own",
        {"keys": {"lines": '{"name":"a","sha256":"00"}\n{"name":"b","sha256":"01"}\n'}},
        kinds=("Deployment", "PodDisruptionBudget", "Secret", "Service"),
        secrets=("reward-karat-keys",),
    ),
    Case(
        "autoscaling",
        {"autoscaling": {"enabled": True, "maxReplicas": 20, "queueTokens": 4_000_000}},
        kinds=("Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget", "Service"),
    ),
    Case(
        "a GPU, and settings of many kinds",
        {
            "gpu": {"count": 1, "runtimeClassName": "nvidia"},
            "settings": {"KARAT_CACHE_MB": "1024", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel:4317"},
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "imagePullSecrets": [{"name": "registry"}],
            "service": {"annotations": {"note": "a: b"}},
        },
    ),
    Case(
        "what lasts",
        {"state": {"existingClaim": "karat-state"}, "replicaCount": 1, "podDisruptionBudget": {"enabled": False}},
        kinds=("Deployment", "Service"),
    ),
]
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"state": {"existingClaim": "karat-state"}}, "replicaCount"),
    ({"keys": {"existingSecret": "a", "lines": "b"}}, "both"),
    ({"models": {"existingClaim": ""}}, "models.existingClaim"),
]
# Values of which no template is asked.
UNKNOWN: list[dict[str, Any]] = [
    {"replicas": 3},
    {"tls": {"secret": "a"}},
    {"settings": {"PATH": "/"}},
    {"settings": {"KARAT_CACHE_MB": 1024}},
    {"settings": {"KARAT_DRAIN_SECONDS": "60"}},
]


def merged(own: Any, given: Any) -> Any:
    """Values as helm lays them over the chart's own."""
    if isinstance(own, dict) and isinstance(given, dict):
        return {key: merged(own.get(key), given[key]) if key in given else own[key] for key in {**own, **given}}
    return copy.deepcopy(given)


class Renderer:
    """Helm, or what there is in its place."""

    def __init__(self, go: Path, work: Path) -> None:
        self.helm = shutil.which("helm")
        self.own = yaml.safe_load((CHART / "values.yaml").read_text())
        self.schema = json.loads((CHART / "values.schema.json").read_text())
        self._work, self._program = work, work / "render"
        if self.helm is None:
            command = [str(go), "build", "-o", str(self._program), str(Path(__file__).parent / "render.go")]
            subprocess.run(command, check=True, env={"HOME": str(work), "PATH": "/usr/bin:/bin", "CGO_ENABLED": "0"})

    def render(self, values: dict[str, Any]) -> list[Manifest]:
        """The manifests; raises Faulty where there are none."""
        texts = self._by_helm(values) if self.helm else self._by_go(values)
        return [one for text in texts for one in yaml.safe_load_all(text) if one]

    def _by_helm(self, values: dict[str, Any]) -> list[str]:
        file = self._work / "values.json"
        file.write_text(json.dumps(values))
        flags = [str(CHART), "--values", str(file), "--namespace", RELEASE["Namespace"]]
        texts = []
        for command in (["lint", "--strict", *flags], ["template", RELEASE["Name"], *flags]):
            done = subprocess.run([str(self.helm), *command], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise Faulty(done.stdout + done.stderr)
            texts.append(done.stdout)
        return texts[1:]

    def _by_go(self, values: dict[str, Any]) -> list[str]:
        chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
        whole = merged(self.own, values)
        try:
            jsonschema.validate(whole, self.schema)
        except jsonschema.ValidationError as error:
            raise Faulty(f"{'.'.join(map(str, error.path))}: {error.message}") from error
        given = {
            "values": whole,
            "release": RELEASE,
            "chart": {key[0].upper() + key[1:]: value for key, value in chart.items()},
            "templates": {file.name: file.read_text() for file in (CHART / "templates").iterdir()},
        }
        command = [str(self._program)]
        done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Faulty(done.stderr)
        rendered: dict[str, str] = json.loads(done.stdout)
        return [text for name, text in rendered.items() if name.endswith(".yaml")]


def hold_to_schemas(manifests: list[Manifest]) -> None:
    """Raises Faulty where one doesn't follow Kubernetes's schemas, unknown fields among it."""
    for manifest in manifests:
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(manifest, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                raise Faulty(f"{manifest['kind']}, Kubernetes {version}: {error}") from error


def must(is_so: bool, what: str) -> None:
    """Raises Faulty unless it is so."""
    if not is_so:
        raise Faulty(what)


def hold_together(case: Case, manifests: list[Manifest]) -> None:
    """Raises Faulty where manifests don't fit each other."""
    kinds = tuple(sorted(manifest["kind"] for manifest in manifests))
    must(kinds == case.kinds, f"kinds {kinds} in place of {case.kinds}")
    by_kind = {manifest["kind"]: manifest for manifest in manifests}
    deployment = by_kind["Deployment"]["spec"]
    pod = deployment["template"]
    labels, spec = pod["metadata"]["labels"], pod["spec"]
    [container] = spec["containers"]
    for selector in [deployment["selector"]["matchLabels"], by_kind["Service"]["spec"]["selector"]]:
        must(selector.items() <= labels.items(), f"{selector} selects no pod of {labels}")
    mounts = [mount["name"] for mount in container["volumeMounts"]]
    must(sorted(mounts) == sorted(volume["name"] for volume in spec["volumes"]), f"mounts {mounts}")
    secrets = [volume["secret"]["secretName"] for volume in spec["volumes"] if "secret" in volume]
    must(sorted(secrets) == sorted(case.secrets), f"Secrets {secrets}")
    own = by_kind.get("Secret")
    must(own is None or own["metadata"]["name"] in secrets, "the Secret is mounted nowhere")
    must(own is None or own["stringData"]["keys.jsonl"] == case.values["keys"]["lines"], "the keys are others")
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    must(all(isinstance(value, str) for value in variables.values()), f"not all are text: {variables}")
    must(len(variables) == len(container["env"]), "a variable is set twice")
    scheme = "HTTPS" if "KARAT_TLS_CERT" in variables else "HTTP"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        must(container[probe]["httpGet"]["scheme"] == scheme, f"{probe} doesn't speak {scheme}")
    sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    ending = sleep + int(variables["KARAT_READY_DOWN_SECONDS"]) + int(variables["KARAT_DRAIN_SECONDS"])
    must(ending < spec["terminationGracePeriodSeconds"], "the grace period is over before requests are answered")
    scaler = by_kind.get("HorizontalPodAutoscaler")
    must(("replicas" in deployment) == (scaler is None), "replicas are set beside an autoscaler")
    if scaler is not None:
        target = scaler["spec"]["metrics"][0]["pods"]["target"]["averageValue"]
        must(target == str(case.values["autoscaling"]["queueTokens"]), f"scales at {target} tokens")
        must(scaler["spec"]["scaleTargetRef"]["name"] == by_kind["Deployment"]["metadata"]["name"], "scales another")
    recreates = deployment["strategy"]["type"] == "Recreate"
    must(recreates == ("KARAT_STATE" in variables), "two servers would share what lasts")


def plain() -> Iterator[tuple[Path, Manifest]]:
    """The manifests of `deploy/kubernetes` whose kinds are Kubernetes's own."""
    for file in sorted(PLAIN.rglob("*.yaml")):
        for manifest in yaml.safe_load_all(file.read_text()):
            # A patch is no whole manifest, and others' kinds have no schema there.
            own = manifest["apiVersion"] in ("v1", "apps/v1", "policy/v1", "autoscaling/v2")
            if own and manifest.get("spec", {}).get("selector"):
                yield file, manifest


def main() -> int:
    """Runs the command; 0 when all is well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--go", type=Path, default=Path("go"), help="Go's program, where helm isn't installed")
    options = parser.parse_args()
    version = next(line for line in (ROOT / "Cargo.toml").read_text().splitlines() if line.startswith("version"))
    app = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    faults = [] if f'"{app}"' in version else [f"Chart.yaml: appVersion is {app}, and Cargo.toml says {version}"]
    with tempfile.TemporaryDirectory() as work:
        renderer = Renderer(options.go, Path(work))
        by = "helm" if renderer.helm else "Go's templates (helm is not installed: nothing was linted)"
        print(f"rendered by {by}, schemas of Kubernetes {' and '.join(VERSIONS)}")
        for case in CASES:
            try:
                manifests = renderer.render(case.values)
                hold_to_schemas(manifests)
                hold_together(case, manifests)
                print(f"  {case.name}: {', '.join(case.kinds)}")
            except Faulty as error:
                faults.append(f"{case.name}: {error}")
        for values, needle in [*REFUSED, *((values, "") for values in UNKNOWN)]:
            try:
                renderer.render(values)
                faults.append(f"{values} is not refused")
            except Faulty as error:
                if needle not in str(error):
                    faults.append(f"{values} is refused without {needle!r}: {error}")
        print(f"  {len(REFUSED) + len(UNKNOWN)} sets of values that can't be: refused")
    for file, manifest in plain():
        try:
            hold_to_schemas([manifest])
            print(f"  {file.relative_to(ROOT)}: {manifest['kind']}")
        except Faulty as error:
            faults.append(f"{file.relative_to(ROOT)}: {error}")
    for fault in faults:
        print(fault, file=sys.stderr)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
