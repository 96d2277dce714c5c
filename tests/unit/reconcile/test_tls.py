"""TLS before a server that has none: by a proxy beside it, with the certificate that the store's owners give."""

from __future__ import annotations

from base64 import b64encode

import pytest
from tests.fakes.engine import FakeEngine
from tests.fakes.story import Story
from tests.fakes.world import World

from coppice.core import labels
from coppice.engines.base import TlsFront
from coppice.manifests.secret import read_secret

CA = "-----BEGIN CERTIFICATE-----\nauthority\n-----END CERTIFICATE-----\n"
IMAGE = "example.com/stunnel:5"
KEYS = {"tls.crt": "certificate", "tls.key": "key", "ca.crt": CA}


class PlainEngine(FakeEngine):
    """One whose server has no TLS, and whose clients begin with it."""

    tls = TlsFront(port=3307, scheme="https")


class PlainWorld(World):
    def _servers(self):
        return PlainEngine()


@pytest.fixture
def plain():
    return Story(PlainWorld(), tls_image=IMAGE)


def certificate(story, *, meant_for="shop", **changes):
    values = {**KEYS, **changes}
    story.kube.add(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "shop-tls", "namespace": "data", "annotations": {labels.STORE: meant_for}},
            "type": "kubernetes.io/tls",
            "data": {key: b64encode(value.encode()).decode() for key, value in values.items()},
        }
    )


def renew(story, **changes):
    def change(secret):
        secret["data"] |= {key: b64encode(value.encode()).decode() for key, value in changes.items()}

    story.kube.change("Secret", "data", "shop-tls", change)


async def secured(story, **spec):
    certificate(story)
    story.store(managed={"tls": {"secretName": "shop-tls"}}, **spec)
    await story.settle()
    story.expect_ready("DataStore", "shop")


async def test_a_proxy_beside_the_server_takes_tls_and_nobody_gets_to_the_server_but_by_it(plain):
    await secured(plain)
    pod = plain.get("Pod", "shop-server")
    engine, proxy = pod["spec"]["containers"]
    assert (engine["name"], proxy["name"], proxy["image"]) == ("engine", "tls", IMAGE)
    [service] = plain.get("Service", "shop")["spec"]["ports"]
    assert (service["port"], service["targetPort"]) == (3307, 3307)
    [rule] = plain.get("NetworkPolicy", "shop")["spec"]["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 3307}]
    assert plain.status("DataStore", "shop")["endpoint"]["port"] == 3307


async def test_the_proxy_has_the_certificate_and_neither_the_data_nor_a_password(plain):
    await secured(plain)
    engine, proxy = plain.get("Pod", "shop-server")["spec"]["containers"]
    assert {mount["name"] for mount in proxy["volumeMounts"]} == {"certificate", "tls-run"}
    assert not any("valueFrom" in entry for entry in proxy["env"])
    assert "certificate" not in {mount["name"] for mount in engine["volumeMounts"]}


async def test_apps_are_led_to_the_proxy_and_told_how_to_know_it(plain):
    await secured(plain)
    binding = read_secret(plain.get("Secret", "shop-binding"))
    assert (binding["port"], binding["ca.crt"]) == ("3307", CA)
    assert binding["uri"].startswith("https://")
    assert ".svc:3307/" in binding["uri"]


async def test_the_operator_itself_speaks_tls_too_and_knows_the_proxy_by_the_authority(plain):
    await secured(plain)
    plain.branch("autumn")
    await plain.settle()
    plain.expect_ready("DataBranch", "autumn")
    assert {(at.port, at.ca) for at in plain.world.engine.logins} == {(3307, CA)}


async def test_a_renewed_certificate_is_the_proxys_affair_and_another_authority_makes_the_pod_anew(plain):
    await secured(plain)
    uid = plain.get("Pod", "shop-server")["metadata"]["uid"]
    renew(plain, **{"tls.crt": "renewed", "tls.key": "renewed"})
    await plain.operator.live(minutes=3)
    assert plain.get("Pod", "shop-server")["metadata"]["uid"] == uid
    other = CA.replace("authority", "other")
    renew(plain, **{"ca.crt": other})
    await plain.operator.live(minutes=3)
    assert plain.get("Pod", "shop-server")["metadata"]["uid"] != uid
    assert read_secret(plain.get("Secret", "shop-binding"))["ca.crt"] == other
    plain.expect_ready("DataStore", "shop")


async def test_nothing_is_started_before_there_is_a_certificate(plain):
    plain.store(managed={"tls": {"secretName": "shop-tls"}})
    await plain.settle()
    assert plain.reason("DataStore", "shop") == "CertificateNotFound"
    assert plain.names("Pod") == []
    certificate(plain)
    await plain.operator.live(minutes=1)
    plain.expect_ready("DataStore", "shop")


@pytest.mark.parametrize("key", ["tls.crt", "tls.key", "ca.crt"])
async def test_a_secret_that_lacks_a_part_is_said_to_lack_it(plain, key):
    certificate(plain, **{key: ""})
    plain.store(managed={"tls": {"secretName": "shop-tls"}})
    await plain.settle()
    assert key in plain.expect_stalled("DataStore", "shop", "CertificateIncomplete")


async def test_an_authority_that_is_no_certificate_is_refused(plain):
    certificate(plain, **{"ca.crt": "nonsense"})
    plain.store(managed={"tls": {"secretName": "shop-tls"}})
    await plain.settle()
    plain.expect_stalled("DataStore", "shop", "CertificateIncomplete")


async def test_a_secret_of_somebody_who_has_not_agreed_is_mounted_nowhere(plain):
    certificate(plain, meant_for="other")
    plain.store(managed={"tls": {"secretName": "shop-tls"}})
    await plain.settle()
    assert "coppice.dev/store=shop" in plain.expect_stalled("DataStore", "shop", "CertificateNotMeant")
    assert plain.names("Pod") == []


async def test_without_an_image_for_it_the_administrator_is_named():
    story = Story(PlainWorld())
    certificate(story)
    story.store(managed={"tls": {"secretName": "shop-tls"}})
    await story.settle()
    assert "tls.image" in story.expect_stalled("DataStore", "shop", "TLSNotOffered")


async def test_an_engine_whose_clients_begin_otherwise_is_refused_by_name():
    story = Story(tls_image=IMAGE)
    certificate(story)
    story.store(managed={"tls": {"secretName": "shop-tls"}})
    await story.settle()
    assert "fake" in story.expect_stalled("DataStore", "shop", "TLSUnsupported")


async def test_tls_can_be_asked_for_later(plain):
    plain.store()
    await plain.settle()
    assert len(plain.get("Pod", "shop-server")["spec"]["containers"]) == 1
    certificate(plain)
    plain.edit("DataStore", "shop", managed={"tls": {"secretName": "shop-tls"}})
    await plain.settle()
    plain.expect_ready("DataStore", "shop")
    assert read_secret(plain.get("Secret", "shop-binding"))["port"] == "3307"
    assert len(plain.get("Pod", "shop-server")["spec"]["containers"]) == 2


async def test_tls_that_is_asked_for_no_more_is_taken_away_with_all_that_led_to_it(plain):
    await secured(plain)
    plain.edit("DataStore", "shop", managed={"tls": None})
    await plain.settle()
    plain.expect_ready("DataStore", "shop")
    assert len(plain.get("Pod", "shop-server")["spec"]["containers"]) == 1
    assert labels.TLS_CA not in plain.get("Pod", "shop-server")["metadata"]["annotations"]
    binding = read_secret(plain.get("Secret", "shop-binding"))
    assert (binding["port"], "ca.crt" in binding, binding["uri"].startswith("https")) == ("3306", False, False)
    [service] = plain.get("Service", "shop")["spec"]["ports"]
    [rule] = plain.get("NetworkPolicy", "shop")["spec"]["ingress"]
    assert (service["port"], rule["ports"][0]["port"]) == (3306, 3306)


def clone_certificate(story, namespace="data", **annotations):
    story.kube.add(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "db-tls", "namespace": namespace, "annotations": annotations},
            "type": "kubernetes.io/tls",
            "data": {key: b64encode(text.encode()).decode() for key, text in KEYS.items()},
        }
    )


async def test_a_clone_takes_tls_where_it_asks_for_it_whatever_its_store_does(plain):
    plain.store()
    clone_certificate(plain, **{labels.CLONE_OPT_IN: "db"})
    plain.clone(tls={"secretName": "db-tls"}, binding={"keys": {"URL": "{uri}"}})
    await plain.settle()
    plain.expect_ready("DataClone", "db")
    binding = read_secret(plain.get("Secret", "db-binding"))
    assert (binding["port"], binding["ca.crt"]) == ("3307", CA)
    assert binding["URL"] == binding["uri"]
    assert binding["uri"].startswith("https://")
    [service] = plain.get("Service", "db")["spec"]["ports"]
    [rule] = plain.get("NetworkPolicy", "db")["spec"]["ingress"]
    assert (service["port"], rule["ports"][0]["port"]) == (3307, 3307)
    assert [entry["name"] for entry in plain.get("Pod", plain.copy())["spec"]["containers"]] == ["engine", "tls"]
    assert plain.status("DataClone", "db")["endpoint"]["port"] == 3307
    pods = {plain.get("Pod", name)["status"]["podIP"]: name for name in ("shop-server", plain.copy())}
    assert {(pods[at.host], at.ca) for at in plain.world.engine.logins if at.host in pods} == {
        ("shop-server", None),
        (plain.copy(), CA),
    }


async def test_a_clone_can_ask_for_tls_later_and_no_more(plain):
    plain.store()
    plain.clone()
    await plain.settle()
    claim = plain.get("PersistentVolumeClaim", plain.copy())["metadata"]["uid"]
    clone_certificate(plain, **{labels.CLONE_OPT_IN: "db"})
    for tls, port in (({"secretName": "db-tls"}, "3307"), (None, "3306")):
        plain.edit("DataClone", "db", tls=tls)
        await plain.settle()
        plain.expect_ready("DataClone", "db")
        binding = read_secret(plain.get("Secret", "db-binding"))
        assert (binding["port"], "ca.crt" in binding) == (port, tls is not None)
        assert len(plain.get("Pod", plain.copy())["spec"]["containers"]) == (1 if tls is None else 2)
    assert plain.get("PersistentVolumeClaim", plain.copy())["metadata"]["uid"] == claim


async def test_a_clones_migrations_run_through_tls_as_its_apps_do(plain):
    plain.store()
    clone_certificate(plain, **{labels.CLONE_OPT_IN: "db"})
    plain.job("shop-migrate", "alice")
    plain.clone(tls={"secretName": "db-tls"}, migrations={"jobTemplate": "shop-migrate"})
    await plain.settle()
    plain.expect_ready("DataClone", "db")
    assert {at.port for at in plain.world.engine.logins if at.ca is not None} == {3307}


@pytest.mark.parametrize(
    ("annotations", "reason"),
    [(None, "CertificateNotFound"), ({}, "CertificateNotMeant"), ({labels.STORE: "db"}, "CertificateNotMeant")],
)
async def test_a_clone_without_a_certificate_that_is_meant_for_it_has_no_server(plain, annotations, reason):
    plain.store()
    if annotations is not None:
        clone_certificate(plain, **annotations)
    plain.clone(tls={"secretName": "db-tls"})
    await plain.settle()
    assert plain.reason("DataClone", "db") == reason
    assert plain.names("Pod") == ["shop-server"]
