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
from coppice.reconcile.reads import Server, server_ref

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


def ports(story, name="shop", kind="DataStore"):
    """Return the ports that are let in, that the Service leads to, and that the status tells."""
    [rule] = story.get("NetworkPolicy", name)["spec"]["ingress"]
    [service] = story.get("Service", name)["spec"]["ports"]
    assert service["port"] == service["targetPort"]
    return [entry["port"] for entry in rule["ports"]], service["port"], story.status(kind, name)["endpoint"]["port"]


def containers(story, name="shop-server"):
    return [entry["name"] for entry in story.get("Pod", name)["spec"]["containers"]]


class Watch:
    """Somebody who looks, at every change, whether each server that runs can be reached as it was made."""

    def __init__(self, story, policy):
        self.kube, self.policy, self.cut_off = story.kube, policy, []
        story.kube.subscribe(self._look)

    def _look(self, _event, manifest):
        policy = self.kube.peek("NetworkPolicy", "data", self.policy)
        if policy is None or manifest["kind"] not in {"Pod", "NetworkPolicy"}:
            return
        [rule] = policy["spec"]["ingress"]
        own = policy["metadata"]["labels"][labels.OWNER_UID]
        for pod in self.kube.all("Pod", "data"):
            marks, running = pod["metadata"]["labels"], pod.get("status", {}).get("phase") == "Running"
            if running and marks.get(labels.OWNER_UID) == own and "deletionTimestamp" not in pod["metadata"]:
                port = pod["spec"]["containers"][-1]["ports"][0]["containerPort"]
                if port not in [entry["port"] for entry in rule["ports"]]:
                    self.cut_off.append((pod["metadata"]["name"], port))


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
    plain.world.hanging = lambda pod: True
    plain.clone(tls={"secretName": "db-tls"}, migrations={"jobTemplate": "shop-migrate"})
    await plain.settle()
    assert plain.reason("DataClone", "db") == "Migrating"
    [job] = [entry for entry in plain.kube.all("Job", "data") if entry["metadata"]["name"] != "shop-migrate"]
    name = job["metadata"]["name"]
    [service] = plain.get("Service", name)["spec"]["ports"]
    assert (service["port"], service["targetPort"]) == (3307, 3307)
    login = read_secret(plain.get("Secret", name))
    assert (login["port"], login["ca.crt"]) == ("3307", CA)
    assert login["uri"].startswith("https://")
    assert f"{name}.data.svc:3307/" in login["uri"]


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


# -- what serves goes on --


async def test_a_store_that_is_to_take_tls_without_a_certificate_goes_on_as_it_is(plain):
    plain.store()
    await plain.settle()
    uid, binding = plain.get("Pod", "shop-server")["metadata"]["uid"], plain.get("Secret", "shop-binding")["data"]
    plain.edit("DataStore", "shop", managed={"tls": {"secretName": "shop-tls"}})
    await plain.operator.live(minutes=2)
    assert plain.reason("DataStore", "shop") == "CertificateNotFound"
    assert "goes on without TLS" in plain.condition("DataStore", "shop")["message"]
    assert plain.get("Pod", "shop-server")["metadata"]["uid"] == uid
    assert plain.get("Secret", "shop-binding")["data"] == binding
    assert ports(plain) == ([3306], 3306, 3306)


async def test_a_store_whose_certificate_is_lost_later_serves_on_and_says_so(plain):
    await secured(plain)
    uid = plain.get("Pod", "shop-server")["metadata"]["uid"]
    plain.delete("Secret", "shop-tls")
    await plain.operator.live(minutes=2)
    plain.expect_ready("DataStore", "shop")
    lost = plain.condition("DataStore", "shop", of="CertificateUsable")
    assert (lost["status"], lost["reason"]) == ("False", "CertificateNotFound")
    plain.clone()
    plain.branch("autumn")
    await plain.settle()
    plain.expect_ready("DataClone", "db")
    plain.expect_ready("DataBranch", "autumn")
    assert plain.get("Pod", "shop-server")["metadata"]["uid"] == uid
    assert read_secret(plain.get("Secret", "shop-binding"))["ca.crt"] == CA
    assert ports(plain) == ([3307], 3307, 3307)
    certificate(plain)
    await plain.operator.live(minutes=2)
    assert "CertificateUsable" not in {entry["type"] for entry in plain.status("DataStore", "shop")["conditions"]}
    assert plain.get("Pod", "shop-server")["metadata"]["uid"] == uid


async def test_a_server_that_has_ended_is_not_made_anew_without_a_certificate(plain):
    await secured(plain)
    plain.delete("Secret", "shop-tls")
    plain.delete("Pod", "shop-server")
    await plain.operator.live(minutes=2)
    assert plain.reason("DataStore", "shop") == "CertificateNotFound"
    assert plain.names("Pod") == []
    assert plain.status("DataStore", "shop")["endpoint"]["port"] == 3307
    certificate(plain)
    await plain.operator.live(minutes=1)
    plain.expect_ready("DataStore", "shop")


@pytest.mark.parametrize("wrong", [None, {}, {labels.CLONE_OPT_IN: "other"}])
async def test_a_clone_that_is_to_take_tls_without_a_certificate_goes_on_as_it_is(plain, wrong):
    plain.store()
    plain.clone()
    await plain.settle()
    pod, binding = plain.get("Pod", plain.copy())["metadata"]["uid"], plain.get("Secret", "db-binding")["data"]
    watch = Watch(plain, "db")
    if wrong is not None:
        clone_certificate(plain, **wrong)
    plain.edit("DataClone", "db", tls={"secretName": "db-tls"})
    await plain.operator.live(minutes=2)
    assert plain.reason("DataClone", "db") in {"CertificateNotFound", "CertificateNotMeant"}
    assert plain.get("Pod", plain.copy())["metadata"]["uid"] == pod
    assert plain.get("Secret", "db-binding")["data"] == binding
    assert ports(plain, "db", "DataClone") == ([3306], 3306, 3306)
    assert watch.cut_off == []


async def test_a_clone_whose_certificate_is_lost_later_serves_on_and_says_so(plain):
    plain.store()
    clone_certificate(plain, **{labels.CLONE_OPT_IN: "db"})
    plain.clone(tls={"secretName": "db-tls"})
    await plain.settle()
    pod = plain.get("Pod", plain.copy())["metadata"]["uid"]
    plain.delete("Secret", "db-tls")
    await plain.operator.live(minutes=2)
    plain.expect_ready("DataClone", "db")
    assert plain.condition("DataClone", "db", of="CertificateUsable")["reason"] == "CertificateNotFound"
    assert plain.get("Pod", plain.copy())["metadata"]["uid"] == pod
    assert read_secret(plain.get("Secret", "db-binding"))["ca.crt"] == CA
    assert ports(plain, "db", "DataClone") == ([3307], 3307, 3307)


@pytest.mark.parametrize(("before", "after"), [(None, {"secretName": "db-tls"}), ({"secretName": "db-tls"}, None)])
async def test_a_reset_that_comes_with_another_way_in_leaves_apps_the_old_copy_as_it_is(plain, before, after):
    old, new = (3306 if before is None else 3307), (3306 if after is None else 3307)
    plain.store()
    clone_certificate(plain, **{labels.CLONE_OPT_IN: "db"})
    plain.job("shop-migrate", "alice")
    plain.clone(tls=before, migrations={"jobTemplate": "shop-migrate"})
    await plain.settle()
    binding, watch = plain.get("Secret", "db-binding")["data"], Watch(plain, "db")
    # The migration of the new copy lasts.
    plain.world.hanging = lambda pod: True
    plain.edit("DataClone", "db", tls=after)
    plain.annotate("DataClone", "db", reset="now")
    await plain.settle()
    assert plain.reason("DataClone", "db") == "Migrating"
    assert len(containers(plain, plain.copy(2))) == (1 if after is None else 2)
    assert ports(plain, "db", "DataClone") == ([3306, 3307], old, old)
    assert plain.get("Secret", "db-binding")["data"] == binding
    plain.world.hanging = lambda pod: False
    await plain.operator.live(minutes=1)
    plain.expect_ready("DataClone", "db")
    assert ports(plain, "db", "DataClone") == ([new], new, new)
    assert read_secret(plain.get("Secret", "db-binding"))["port"] == str(new)
    assert watch.cut_off == []


@pytest.mark.parametrize("kind", ["DataStore", "DataClone"])
async def test_no_server_is_cut_off_while_tls_comes_and_goes(plain, kind):
    plain.store()
    plain.clone()
    certificate(plain)
    clone_certificate(plain, **{labels.CLONE_OPT_IN: "db"})
    await plain.settle()
    watches = [Watch(plain, "shop"), Watch(plain, "db")]
    for on in (True, False):
        tls = {"secretName": "shop-tls" if kind == "DataStore" else "db-tls"} if on else None
        plain.edit(
            kind,
            "shop" if kind == "DataStore" else "db",
            **({"managed": {"tls": tls}} if kind == "DataStore" else {"tls": tls}),
        )
        await plain.settle()
        port = 3307 if on else 3306
        assert ports(plain, "shop" if kind == "DataStore" else "db", kind) == ([port], port, port)
    assert [watch.cut_off for watch in watches] == [[], []]


async def test_a_server_whose_authority_somebody_took_away_is_not_spoken_to_and_made_anew(plain):
    await secured(plain)
    pod = plain.get("Pod", "shop-server")
    stripped = {**pod, "metadata": {**pod["metadata"], "annotations": {}}}
    engine = plain.world.engine
    assert Server(pod, plain.get("Secret", "shop-admin")).endpoint(engine).port == 3307
    assert Server(stripped, plain.get("Secret", "shop-admin")).endpoint(engine) is None
    with pytest.raises(TypeError):
        server_ref(stripped, engine, "shop-admin")
    plain.kube.change("Pod", "data", "shop-server", lambda found: found["metadata"]["annotations"].pop(labels.TLS_CA))
    await plain.settle()
    plain.expect_ready("DataStore", "shop")
    assert plain.get("Pod", "shop-server")["metadata"]["uid"] != pod["metadata"]["uid"]
    assert {at.port for at in engine.logins if at.host == pod["status"]["podIP"]} == {3307}


async def test_only_the_certificate_and_its_key_are_mounted_of_a_secret_that_is_one_for_tls(plain):
    await secured(plain)
    [volume] = [entry for entry in plain.get("Pod", "shop-server")["spec"]["volumes"] if entry["name"] == "certificate"]
    assert [item["key"] for item in volume["secret"]["items"]] == ["tls.crt", "tls.key"]


async def test_a_secret_of_another_type_is_not_mounted(plain):
    certificate(plain)
    plain.kube.change("Secret", "data", "shop-tls", lambda found: found.update(type="Opaque"))
    plain.store(managed={"tls": {"secretName": "shop-tls"}})
    await plain.settle()
    assert "kubernetes.io/tls" in plain.expect_stalled("DataStore", "shop", "CertificateOfOtherType")
    assert plain.names("Pod") == []


async def test_a_server_goes_on_when_the_consent_is_taken_back(plain):
    await secured(plain)
    uid = plain.get("Pod", "shop-server")["metadata"]["uid"]
    plain.kube.change("Secret", "data", "shop-tls", lambda found: found["metadata"].pop("annotations"))
    await plain.operator.live(minutes=2)
    plain.expect_ready("DataStore", "shop")
    assert plain.condition("DataStore", "shop", of="CertificateUsable")["reason"] == "CertificateNotMeant"
    assert plain.get("Pod", "shop-server")["metadata"]["uid"] == uid
