"""The renderer of the chart: what it renders, what it refuses, and the values it takes."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from holdfast.backends import registry
from holdfast.server.deploy import manifests, templates


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("a {{ .x }} b", "a 1 b"),
        ("a {{- .x -}} b", "a1b"),
        ("{{ .text | quote }}", '"say \\"hi\\""'),
        ("{{ .map | toJson }}", '{"a":{"n":1},"b":{"n":2}}'),
        ("{{ .yes }}", "true"),
        ("{{ if .none }}a{{ else }}b{{ end }}", "b"),
        ("{{ if .yes }}{{ if .none }}a{{ end }}c{{ end }}", "c"),
        ("{{ range .list }}<{{ . }}>{{ end }}", "<p><q>"),
        ("{{ range $k, $v := .map }}{{ $k }}={{ $v.n }};{{ end }}", "a=1;b=2;"),
    ],
)
def test_a_template_is_rendered_as_helm_does(text: str, rendered: str) -> None:
    values: dict[str, Any] = {
        "x": 1,
        "yes": True,
        "none": [],
        "list": ["p", "q"],
        "map": {"b": {"n": 2}, "a": {"n": 1}},
        "text": 'say "hi"',
    }
    assert templates.render("t", text, values) == rendered


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{{ .nothing }}", "there is no value .nothing"),
        ("{{ include .x }}", "is not rendered here"),
        ("{{ .x | nindent }}", "there is no function nindent"),
        ("{{ if .x }}", "has no end"),
        ("{{ end }}", "closes nothing"),
        ("{{ .x }}", "is no text"),
    ],
)
def test_what_is_not_rendered_is_an_error(text: str, complaint: str) -> None:
    with pytest.raises(templates.TemplateError, match=complaint):
        templates.render("t", text, {"x": {"y": 1}})


def test_values_know_every_driver_and_whether_it_attaches() -> None:
    """A driver that is new in the registry has to be added to the chart's values.yaml."""
    drivers = manifests.defaults()["drivers"]
    for name, backend in registry.DRIVERS.items():
        assert name in drivers, f"add {name} to drivers in values.yaml"
        assert drivers[name]["attachRequired"] == (backend in registry.ATTACHING), name
    assert manifests.enabled(manifests.defaults()) == []


def test_settings_are_read_as_helm_reads_them() -> None:
    settings = [
        r"drivers.local\.holdfast\.dev.enabled=true",
        "controller.replicas=3",
        "controller.arguments={--except=a,--except=b}",
        "node.nodeSelector.disk=fast",
        "image=registry.example/holdfast:1",
    ]
    values = manifests.with_settings(manifests.defaults(), settings)
    assert manifests.enabled(values) == ["local.holdfast.dev"]
    assert values["controller"]["replicas"] == 3
    assert values["controller"]["arguments"] == ["--except=a", "--except=b"]
    assert values["node"]["nodeSelector"]["disk"] == "fast"
    assert values["image"] == "registry.example/holdfast:1"
    assert manifests.defaults()["controller"]["replicas"] == 2


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("controler.replicas=1", "did you mean controller?"),
        ("controller.replica=1", "did you mean replicas?"),
        ("image", "write NAME=VALUE"),
    ],
)
def test_a_misspelt_setting_is_an_error(setting: str, complaint: str) -> None:
    with pytest.raises(manifests.InstallError) as caught:
        manifests.with_settings(manifests.defaults(), [setting])
    assert complaint in str(caught.value)


def test_the_configuration_is_kept_to_the_letter() -> None:
    text = '[rbd.ceph]\nmonitors = ["10.0.0.1"]\n# "ü" \\ {{ .x }}\n'
    values = manifests.defaults() | {"config": text}
    found = {
        each["kind"] + "/" + each["metadata"]["name"]: each
        for each in manifests.objects(values, "elsewhere")
    }
    assert found["Secret/holdfast-config"]["stringData"] == {"holdfast.toml": text}
    assert found["Deployment/holdfast-controller"]["metadata"]["namespace"] == "elsewhere"
    values["existingSecret"] = "mine"
    kinds = [each["kind"] for each in yaml.safe_load_all(manifests.render(values, "x"))]
    assert "Secret" not in kinds


def test_the_chart_has_exactly_the_drivers_that_there_are() -> None:
    assert set(manifests.defaults()["drivers"]) == set(registry.DRIVERS)
    for name, driver in manifests.defaults()["drivers"].items():
        attached = registry.DRIVERS[name] in registry.ATTACHING
        assert driver["attachRequired"] == attached, name
