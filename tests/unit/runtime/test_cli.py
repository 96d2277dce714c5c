"""The commands that print, and that none of them imports what another one needs."""

import subprocess
import sys

import pytest
import yaml
from click.testing import CliRunner

from coppice import __version__
from coppice.cli.main import main
from coppice.crdgen import crd_manifests


def printed(*arguments):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return list(yaml.safe_load_all(result.output))


def test_crds_are_printed_as_they_are_generated():
    assert printed("crds") == list(crd_manifests().values())


def test_rbac_is_a_cluster_role_and_a_role_for_the_lease():
    cluster, own = printed("rbac", "--namespace", "data")
    assert (cluster["kind"], own["kind"], own["metadata"]["namespace"]) == ("ClusterRole", "Role", "data")
    assert own["rules"] == [
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "get", "update"]}
    ]
    words = yaml.safe_dump(cluster)
    assert "*" not in words


def test_the_version_is_printed():
    assert __version__ in CliRunner().invoke(main, ["--version"]).output


@pytest.mark.parametrize("module", ["kopf", "kubernetes", "grpc", "aiohttp", "pydantic", "rich"])
def test_help_needs_no_library_of_a_command(module):
    code = f"import sys; from coppice.cli.main import main; main(['--help'], standalone_mode=False); assert {module!r} not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, env={"PYTHONPATH": "operator"})


def test_python_m_coppice_is_the_same_command():
    found = subprocess.run(
        [sys.executable, "-m", "coppice", "--version"],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": "operator"},
    )
    assert found.stdout.startswith("coppice, version")


def test_it_is_a_command_of_kubectl_too():
    code = "import sys; sys.argv[1:] = ['--help']; from coppice.cli.main import plugin; plugin()"
    found = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={"PYTHONPATH": "operator"}
    )
    assert found.stdout.startswith("Usage: kubectl coppice [OPTIONS] COMMAND")
