"""Pull requests without Argo CD: the jobs of the examples for GitHub Actions, GitLab CI and Jenkins, with the
environment that each of these systems gives them, and a token for one namespace. The forge is a server that follows the
documented API of each: none can be had in a test.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from tests.fakes.forge import Forge
from tests.fakes.gitlab import GitLabForge

from e2e.suite.editor import Editor
from e2e.suite.manifests import EXAMPLES, data_grant
from e2e.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from e2e.suite.data import Store
    from e2e.suite.kube import Kube

REPOSITORY = "acme/shop"
TOKEN = "t0p-s3cret"
SETTING_UP = "$RUNNER_TEMP/kubeconfig"
"""What a step mentions that does nothing but write the kubeconfig, which tests have already."""


@dataclass(frozen=True)
class Pipeline:
    """A CI system at work on the pull requests of a repository."""

    forge: Forge
    url: str
    folder: Path
    kubeconfig: Path
    store: str

    def run(self, scripts: list[str], environment: Mapping[str, str]) -> None:
        """Run a job as its system does: each script in a shell that ends with the first command that fails."""
        for script in scripts:
            done = subprocess.run(
                ["bash", "-e", "-o", "pipefail", "-c", script.replace("data/shop", self.store)],
                check=False,
                cwd=self.folder,
                env={**_clean(), **environment, "PATH": self._path, "KUBECONFIG": str(self.kubeconfig)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
            assert TOKEN not in done.stdout + done.stderr

    @property
    def _path(self) -> str:
        return f"{self.folder / 'bin'}:{os.environ['PATH']}"

    def opened(self, sha: str) -> int:
        return self.forge.repository(REPOSITORY).open("prices", "prices", sha).number

    def comments(self, number: int) -> list[str]:
        notes = self.forge.repository(REPOSITORY).comments
        return [note["body"] for note in notes if number in {note.get("noteable_iid"), _issue(note)}]


def _issue(note: Mapping[str, Any]) -> int | None:
    return int(note["issue_url"].rpartition("/")[2]) if "issue_url" in note else None


def _clean() -> dict[str, str]:
    """Return this process's environment without what a CI system that runs the tests has put there."""
    return {name: value for name, value in os.environ.items() if not re.match(r"(GITHUB|GITLAB|CI|CHANGE|GIT)_", name)}


@contextmanager
def _at_work(forge: Forge, folder: Path, kubeconfig: Path, store: str) -> Iterator[Pipeline]:
    binaries = folder / "bin"
    binaries.mkdir()
    command = binaries / "coppice"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m coppice "$@"\n')
    command.chmod(0o755)
    (folder / "deploy").mkdir()
    shutil.copy(EXAMPLES / "pipelines" / "preview.yaml", folder / "deploy")
    forge.tokens.add(TOKEN)
    with forge.serving() as url:
        yield Pipeline(forge, url, folder, kubeconfig, store)


@dataclass(frozen=True)
class GitHub:
    """GitHub Actions: https://docs.github.com/actions/reference/workflows-and-actions/variables."""

    forge: type[Forge] = Forge

    def job(self, name: str) -> list[str]:
        job = yaml.safe_load((EXAMPLES / "github-actions" / "preview.yaml").read_text())["jobs"][name]
        scripts = [step["run"] for step in job["steps"] if "run" in step]
        return [script for script in scripts if SETTING_UP not in script]

    def environment(self, at: Pipeline, number: int, sha: str) -> dict[str, str]:
        event = at.folder / "event.json"
        event.write_text(json.dumps({"pull_request": {"number": number, "head": {"sha": sha}}}))
        return {
            "GITHUB_ACTIONS": "true",
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_API_URL": f"{at.url}/api/v3",
            "GITHUB_EVENT_PATH": str(event),
            "GITHUB_TOKEN": TOKEN,
            "PR": str(number),
        }


@dataclass(frozen=True)
class GitLab:
    """GitLab CI: https://docs.gitlab.com/ci/variables/predefined_variables/."""

    forge: type[Forge] = GitLabForge

    def job(self, name: str) -> list[str]:
        found: list[str] = yaml.safe_load((EXAMPLES / "gitlab-ci" / ".gitlab-ci.yml").read_text())[name]["script"]
        return found

    def environment(self, at: Pipeline, number: int, sha: str) -> dict[str, str]:
        return {
            "GITLAB_CI": "true",
            "CI_SERVER_HOST": "gitlab.com",
            "CI_API_V4_URL": f"{at.url}/api/v4",
            "CI_MERGE_REQUEST_PROJECT_PATH": REPOSITORY,
            "CI_MERGE_REQUEST_IID": str(number),
            "CI_COMMIT_SHA": sha,
            "GITLAB_TOKEN": TOKEN,
            "PR": str(number),
        }


@dataclass(frozen=True)
class Jenkins:
    """Jenkins: the variables of a multibranch pipeline that builds a pull request on GitHub."""

    forge: type[Forge] = Forge

    def job(self, name: str) -> list[str]:
        text = (EXAMPLES / "jenkins" / "Jenkinsfile").read_text()
        [stage] = re.findall(rf"stage\('{name}'\).*?sh '''(.*?)'''", text, re.DOTALL)
        return [stage]

    def environment(self, at: Pipeline, number: int, sha: str) -> dict[str, str]:
        return {
            "CHANGE_ID": str(number),
            "CHANGE_URL": f"https://github.com/{REPOSITORY}/pull/{number}",
            "GIT_COMMIT": sha,
            "GITHUB_API_URL": f"{at.url}/api/v3",
            "GITHUB_TOKEN": TOKEN,
        }


@pytest.fixture(params=[GitHub(), GitLab(), Jenkins()], ids=lambda system: type(system).__name__)
def system(request: pytest.FixtureRequest) -> Any:
    """A CI system."""
    return request.param


@pytest.fixture(scope="module")
def shop(store: Store) -> Store:
    """The store, with what the app asks for before it says that it is ready."""
    store.commit("CREATE TABLE Track (TrackId INT PRIMARY KEY); INSERT INTO Track VALUES (1)", "a track")
    return store


@pytest.fixture
def previews(kube: Kube, shop: Store, request: pytest.FixtureRequest) -> Iterator[str]:
    """The namespace of the example, with its grant."""
    labels, grant = yaml.safe_load_all((EXAMPLES / "pipelines" / "namespace.yaml").read_text())
    name = kube.new_namespace(request.node.name, **labels["metadata"]["labels"])
    terms = {key: value for key, value in grant["spec"].items() if key not in {"store", "to", "verbs", "data"}}
    kube.apply(data_grant(name, shop.namespace, store=shop.name, to=[name], **terms))
    yield name
    kube.delete_namespace(name, wait=False)


@pytest.fixture
def pipeline(kube: Kube, shop: Store, previews: str, system: Any, tmp_path: Path) -> Iterator[Pipeline]:
    """The CI system at work, with a token for the namespace of the previews alone."""
    ci = Editor.of(kube, previews, tmp_path)
    with _at_work(system.forge(), tmp_path, ci.kubeconfig, f"{shop.namespace}/{shop.name}") as found:
        yield found


def test_a_pull_request_has_its_app_on_its_own_data_and_nothing_is_left_when_it_is_closed(
    kube: Kube, previews: str, pipeline: Pipeline, system: Any
) -> None:
    number = pipeline.opened("a" * 40)
    name = f"pr-{number}"
    pipeline.run(system.job("up"), system.environment(pipeline, number, "a" * 40))
    clone = kube.get("dclone", name, previews)
    assert clone is not None
    uid = clone["metadata"]["uid"]
    [comment] = pipeline.comments(number)
    assert comment.startswith(f"<!-- coppice: {previews}/{name} -->\n**Database `{previews}/{name}`: ready**")
    assert f"| App | https://shop-pr-{number}.example.com |" in comment

    pipeline.run(system.job("up"), system.environment(pipeline, number, "b" * 40))
    assert kube.status("dclone", name, previews)["revision"] == "b" * 40
    assert len(pipeline.comments(number)) == 1

    pipeline.run(system.job("down"), system.environment(pipeline, number, "b" * 40))
    eventually(lambda: not kube.owned_by(uid), "nothing is left of the clone")
    assert kube.items("dclone,deployment,service", "-n", previews) == []
    pipeline.run(system.job("down"), system.environment(pipeline, number, "b" * 40))
