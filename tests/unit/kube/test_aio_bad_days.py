"""The adapter against an API server that has a bad day."""

from datetime import datetime

import pytest
from kubernetes.aio.client import Configuration
from kubernetes.aio.config.incluster_config import InClusterConfigLoader
from tests.fakes.http_api import HttpApi, kubeconfig

from coppice.core import labels
from coppice.kube.aio import AioKubeClient
from coppice.kube.errors import ConflictError, ForbiddenError, InvalidError, KubeError, NotFoundError, TransientError
from coppice.kube.login import LoginError, load_configuration, load_login
from coppice.runtime.login import connection_info

SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db", "namespace": "app"}}


@pytest.fixture
async def api():
    api = HttpApi()
    async with api.serve() as url:
        api.url = url
        yield api


@pytest.fixture
async def client(api):
    client = AioKubeClient(Configuration(host=api.url), request_seconds=0.5)
    yield client
    await client.aclose()


async def test_a_survey_finds_what_has_an_owner_and_all_of_our_own_kinds(api, client):
    owned = {**SECRET, "metadata": {"name": "ours", "namespace": "app", "labels": {labels.OWNER_UID: "u1"}}}
    grant = {"apiVersion": "coppice.dev/v1alpha1", "kind": "DataGrant", "metadata": {"name": "g", "namespace": "app"}}
    for manifest in (SECRET, owned, grant):
        api.kube.add(manifest)
    assert [found["metadata"]["name"] for found in await client.survey("Secret")] == ["ours"]
    assert [found["metadata"]["name"] for found in await client.survey("DataGrant")] == ["g"]


@pytest.mark.parametrize("status", [401, 408, 429, 500, 502, 503, 504])
async def test_what_may_pass_is_transient(api, client, status):
    api.fail(status=status)
    with pytest.raises(TransientError) as caught:
        await client.get("Secret", "db", "app")
    assert caught.value.status == status
    assert await client.get("Secret", "db", "app") is None


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, InvalidError), (403, ForbiddenError), (404, NotFoundError), (409, ConflictError), (422, InvalidError)],
)
async def test_refusals_have_a_class_each(api, client, status, error):
    api.fail(status=status)
    with pytest.raises(error, match="a bad day"):
        await client.create(SECRET)


async def test_a_namespace_that_has_no_service_account_yet_will_have_one(api, client, monkeypatch):
    words = 'pods "db-1" is forbidden: error looking up service account app/default: serviceaccount "default" not found'

    async def act(*_):
        raise ForbiddenError(words, status=403, reason="Forbidden")

    monkeypatch.setattr(api, "_act", act)
    with pytest.raises(TransientError, match="service account"):
        await client.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "db-1", "namespace": "app"}})


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("soon", None)])
async def test_the_server_says_how_long_to_wait(api, client, header, seconds):
    api.fail(status=429, headers={"Retry-After": header})
    with pytest.raises(TransientError) as caught:
        await client.get("Secret", "db", "app")
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize("fault", [{"hang": True}, {"hang_up": True}])
async def test_no_answer_is_transient_though_it_may_have_been_done(api, client, fault):
    api.fail(act=True, **fault)
    with pytest.raises(TransientError, match="POST /api/v1/namespaces/app/secrets"):
        await client.create(SECRET)
    assert api.kube.peek("Secret", "app", "db") is not None


async def test_nothing_is_repeated_behind_our_back(api, client):
    api.fail(times=3, status=500)
    with pytest.raises(TransientError):
        await client.get("Secret", "db", "app")
    assert len(api.requests) == 1


async def test_a_proxy_of_the_environment_is_not_for_the_api_server(api, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    client = AioKubeClient(Configuration(host=api.url))
    assert await client.get("Secret", "db", "app") is None
    await client.aclose()


async def test_a_list_whose_page_token_expired_is_started_over(api, client, monkeypatch):
    pages = [
        {"metadata": {"continue": "one"}, "items": [{"metadata": {"name": "stale"}}]},
        {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"},
        {"metadata": {}, "items": [{"metadata": {"name": "fresh"}}]},
    ]

    async def act(request, *_):
        page = pages.pop(0)
        if page.get("code"):
            raise KubeError("too old", status=410, reason="Expired")
        return page

    monkeypatch.setattr(api, "_act", act)
    assert [item["metadata"]["name"] for item in await client.list("Secret", "app")] == ["fresh"]


async def test_a_kubeconfig_and_kopf_log_in_alike(api, tmp_path):
    path = tmp_path / "config"
    path.write_text(kubeconfig(api.url, token="sesame"))
    api.token = "sesame"
    configuration = await load_configuration({"KUBECONFIG": str(path)})
    client = AioKubeClient(configuration)
    assert await client.get("Secret", "db", "app") is None
    await client.aclose()
    info = await connection_info(configuration)
    assert (info.server, info.as_http_headers()) == (api.url, {"Authorization": "Bearer sesame"})


async def test_without_any_credentials_the_message_says_what_to_set(tmp_path):
    with pytest.raises(LoginError, match="KUBECONFIG"):
        await load_configuration({"KUBECONFIG": str(tmp_path / "none")})


async def test_a_pods_token_is_read_anew(api, tmp_path, monkeypatch):
    token, ca = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text("old")
    ca.write_text("unused")
    configuration = Configuration(host=api.url)
    loader = InClusterConfigLoader(
        str(token), str(ca), environ={"KUBERNETES_SERVICE_HOST": "x", "KUBERNETES_SERVICE_PORT": "1"}
    )
    loader.load_and_set(configuration)
    token.write_text("new")
    loader.token_expires_at = datetime.min  # noqa: DTZ901 - the library's is naive
    assert (await connection_info(configuration)).token == "new"


async def test_a_context_says_which_cluster_and_which_namespace(tmp_path):
    path = tmp_path / "config"
    path.write_text(
        """
        apiVersion: v1
        kind: Config
        current-context: one
        contexts:
        - {name: one, context: {cluster: one, user: u}}
        - {name: two, context: {cluster: two, user: u, namespace: shop}}
        clusters: [{name: one, cluster: {server: "http://one"}}, {name: two, cluster: {server: "http://two"}}]
        users: [{name: u, user: {token: sesame}}]
        """
    )
    environ = {"KUBECONFIG": str(path)}
    first, second = await load_login(environ), await load_login(environ, context="two")
    assert (first.configuration.host, first.namespace) == ("http://one", "default")
    assert (second.configuration.host, second.namespace) == ("http://two", "shop")
    with pytest.raises(LoginError, match="three"):
        await load_login(environ, context="three")
