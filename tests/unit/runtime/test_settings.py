"""Settings come from the environment, and a wrong one is named before anything starts."""

import dataclasses
import re
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from coppice.cli.main import main
from coppice.runtime.settings import _VARIABLES, Settings, SettingsError, read_settings

ROOT = Path(__file__).parents[3]


def test_without_variables_everything_has_a_default():
    settings = read_settings({})
    assert settings == Settings(identity=settings.identity)
    assert settings.identity


def test_every_variable_sets_its_field():
    settings = read_settings(
        {
            "COPPICE_NAMESPACE": "data",
            "COPPICE_IMAGES": '{"dolt": {"1.83": "example.com/dolt:1.83.2"}}',
            "COPPICE_ANY_VERSION": '["terminusdb"]',
            "COPPICE_TLS_IMAGE": "example.com/stunnel:5",
            "COPPICE_RESYNC": "90s",
            "COPPICE_WORKERS": "4",
            "COPPICE_LOG_LEVEL": "",
        }
    )
    assert settings.namespace == "data"
    assert settings.images == {"dolt": {"1.83": "example.com/dolt:1.83.2"}}
    assert settings.any_version == ("terminusdb",)
    assert settings.tls_image == "example.com/stunnel:5"
    assert settings.resync == timedelta(seconds=90)
    assert settings.workers == 4
    assert settings.log_level == "info"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("COPPICE_WORKERS", "0"),
        ("COPPICE_WORKERS", "many"),
        ("COPPICE_RESYNC", "10"),
        ("COPPICE_LOG_LEVEL", "trace"),
        ("COPPICE_SERVER_MEMORY", "much"),
        ("COPPICE_CLONE_MEMORY", "much"),
        ("COPPICE_CLONE_CPU", "much"),
        ("COPPICE_IMAGES", "dolt"),
        ("COPPICE_IMAGES", "[]"),
        ("COPPICE_IMAGES", '{"dolt": "image"}'),
        ("COPPICE_IMAGES", '{"dolt": {"1.83": ""}}'),
        ("COPPICE_ANY_VERSION", "terminusdb"),
        ("COPPICE_ANY_VERSION", '{"terminusdb": true}'),
        ("COPPICE_ANY_VERSION", "[1]"),
        ("COPPICE_FORGES", "github"),
        ("COPPICE_FORGES", "{}"),
        ("COPPICE_FORGES", '["github"]'),
        ("COPPICE_FORGES", '[{"provider": "github"}]'),
        ("COPPICE_FORGES", '[{"provider": "gitea", "tokenFile": "/t"}]'),
        ("COPPICE_FORGES", '[{"provider": "github", "tokenFile": "/t", "interval": "5s"}]'),
        ("COPPICE_FORGES", '[{"provider": "github", "tokenFile": "/t", "dryRun": "no"}]'),
        ("COPPICE_FORGES", '[{"provider": "github", "tokenFile": "/t", "url": "https://me:secret@github.com"}]'),
        ("COPPICE_FORGES", '[{"provider": "github", "tokenFile": "/t", "unknown": 1}]'),
        ("COPPICE_FORGES", '[{"provider": "github", "tokenFile": "/t"}, {"provider": "github", "tokenFile": "/u"}]'),
        ("COPPICE_METRICS_PORT", "-1"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(variable, value):
    with pytest.raises(SettingsError, match=re.escape(variable)):
        read_settings({variable: value})


def test_the_command_names_a_bad_setting_and_does_not_start(monkeypatch):
    monkeypatch.setenv("COPPICE_WORKERS", "none")
    result = CliRunner().invoke(main, ["operator"])
    assert result.exit_code == 1
    assert "COPPICE_WORKERS='none' is not a number from 1" in result.output


def test_every_field_has_a_variable_that_its_documentation_names():
    source = (ROOT / "operator/coppice/runtime/settings.py").read_text()
    fields = {field.name for field in dataclasses.fields(Settings)}
    assert {name for name, _, _ in _VARIABLES.values()} == fields
    for variable, (name, _, _) in _VARIABLES.items():
        assert re.search(rf'    {name}: [^\n]*\n    """``{variable}``: ', source)


def test_the_chart_sets_no_variable_that_nobody_reads():
    template = (ROOT / "helm/coppice/templates/operator/_environment.tpl").read_text()
    assert set(re.findall(r"name: (COPPICE_\w+)", template)) <= set(_VARIABLES)
