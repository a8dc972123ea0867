"""The Python client for Kubernetes on a swarm: each function below is a case, run in this order.

Usage: suite.py KUBECONFIG ARTIFACT, the digest of a component that was uploaded.
"""

import json
import sys
import threading
import traceback

import kubernetes
from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError

SPACE = "python"


def refused(status, reason, call, *arguments, **options):
    """Calls, and expects an ApiException of this status and reason."""
    try:
        call(*arguments, **options)
    except ApiException as error:
        assert error.status == status, error
        assert reason in error.body, error.body
        return error
    raise AssertionError(f"{call.__name__} should have been answered {status}")


def config_map(name, data=None, **metadata):
    return client.V1ConfigMap(
        metadata=client.V1ObjectMeta(name=name, **metadata), data=data or {}
    )


def namespaces(core, **_):
    made = core.create_namespace(
        client.V1Namespace(metadata=client.V1ObjectMeta(name=SPACE))
    )
    assert made.status.phase == "Active", made
    assert SPACE in [item.metadata.name for item in core.list_namespace().items]
    refused(409, "AlreadyExists", core.create_namespace, made)


def config_maps(core, **_):
    made = core.create_namespaced_config_map(SPACE, config_map("plain", {"a": "1"}))
    assert made.metadata.uid and made.metadata.creation_timestamp, made
    read = core.read_namespaced_config_map("plain", SPACE)
    assert read == made, (read, made)
    read.data["b"] = "2"
    replaced = core.replace_namespaced_config_map("plain", SPACE, read)
    assert replaced.data == {"a": "1", "b": "2"}, replaced
    # What was read before is of the past now.
    made.data = {"late": "yes"}
    refused(409, "Conflict", core.replace_namespaced_config_map, "plain", SPACE, made)
    refused(404, "NotFound", core.read_namespaced_config_map, "nothing", SPACE)
    refused(
        422, "Invalid", core.create_namespaced_config_map, SPACE, config_map("Not a name")
    )
    dry = core.create_namespaced_config_map(SPACE, config_map("dry"), dry_run="All")
    assert dry.metadata.name == "dry"
    refused(404, "NotFound", core.read_namespaced_config_map, "dry", SPACE)
    generated = core.create_namespaced_config_map(
        SPACE, client.V1ConfigMap(metadata=client.V1ObjectMeta(generate_name="made-"))
    )
    assert generated.metadata.name.startswith("made-"), generated
    binary = client.V1ConfigMap(
        metadata=client.V1ObjectMeta(name="binary"), binary_data={"b": "AAH/"}
    )
    assert core.create_namespaced_config_map(SPACE, binary).binary_data == {"b": "AAH/"}


def patches(core, **_):
    # A dictionary goes as a strategic merge patch, a list as a JSON patch.
    patched = core.patch_namespaced_config_map("plain", SPACE, {"data": {"a": None, "c": "3"}})
    assert patched.data == {"b": "2", "c": "3"}, patched
    change = [{"op": "replace", "path": "/data/c", "value": "4"}]
    assert core.patch_namespaced_config_map("plain", SPACE, change).data["c"] == "4"
    labelled = core.patch_namespaced_config_map(
        "plain", SPACE, {"metadata": {"labels": {"app": "shop"}}}
    )
    assert labelled.metadata.labels == {"app": "shop"}, labelled


def server_side_apply(core, api, **_):
    def apply(manager, data, **options):
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "applied"},
            "data": data,
        }
        return core.patch_namespaced_config_map(
            "applied",
            SPACE,
            body,
            field_manager=manager,
            _content_type="application/apply-patch+yaml",
            **options,
        )

    tried = apply("chief", {"open": "9"}, dry_run="All")
    assert tried.data == {"open": "9"}, tried
    refused(404, "NotFound", core.read_namespaced_config_map, "applied", SPACE)
    made = apply("chief", {"open": "9", "close": "18"})
    assert apply("chief", {"open": "9", "close": "18"}) == made
    error = refused(409, "Conflict", apply, "clerk", {"open": "8"})
    [cause] = json.loads(error.body)["details"]["causes"]
    assert cause["reason"] == "FieldManagerConflict", cause
    assert cause["field"] == ".data.open" and '"chief"' in cause["message"], cause
    assert core.read_namespaced_config_map("applied", SPACE).data == made.data
    forced = apply("clerk", {"open": "8"}, force=True)
    assert forced.data == {"open": "8", "close": "18"}, forced
    owners = {entry.manager: entry for entry in forced.metadata.managed_fields}
    assert owners["clerk"].operation == "Apply", owners
    assert owners["clerk"].fields_v1 == {"f:data": {"f:open": {}}}, owners
    # What its only owner leaves out goes.
    assert apply("chief", {}).data == {"open": "8"}

    maps = DynamicClient(api).resources.get(api_version="v1", kind="ConfigMap")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}}
    try:
        maps.server_side_apply(
            body={**body, "data": {"open": "7"}}, namespace=SPACE, field_manager="dynamic"
        )
        raise AssertionError("a conflict was overlooked")
    except ConflictError as error:
        assert 'conflict with \\"clerk\\"' in error.body, error.body
    applied = maps.server_side_apply(
        body={**body, "data": {"open": "7"}},
        namespace=SPACE,
        field_manager="dynamic",
        force_conflicts=True,
    )
    assert applied.data.to_dict() == {"open": "7"}, applied


def secrets(core, **_):
    body = client.V1Secret(
        metadata=client.V1ObjectMeta(name="login"), string_data={"user": "ann"}
    )
    made = core.create_namespaced_secret(SPACE, body)
    assert made.data == {"user": "YW5u"} and made.type == "Opaque", made
    made.immutable = True
    core.replace_namespaced_secret("login", SPACE, made)
    refused(
        422, "immutable", core.patch_namespaced_secret, "login", SPACE, {"data": {"user": "eA=="}}
    )
    status = core.delete_namespaced_secret("login", SPACE)
    assert status["status"] == "Success", status


def service_accounts(core, api, **_):
    core.create_namespaced_service_account(
        SPACE, client.V1ServiceAccount(metadata=client.V1ObjectMeta(name="robot"))
    )
    request = client.AuthenticationV1TokenRequest(
        spec=client.V1TokenRequestSpec(audiences=[], expiration_seconds=600)
    )
    answer = core.create_namespaced_service_account_token("robot", SPACE, request)
    assert answer.status.expiration_timestamp, answer
    # The token is somebody: one who may do nothing yet.
    own = client.Configuration.get_default_copy()
    own.refresh_api_key_hook = None
    own.api_key = {"BearerToken": f"Bearer {answer.status.token}"}
    robot = client.CoreV1Api(client.ApiClient(own))
    refused(403, "Forbidden", robot.list_namespaced_config_map, SPACE)
    rbac = client.RbacAuthorizationV1Api(api)
    rule = client.V1PolicyRule(api_groups=[""], resources=["configmaps"], verbs=["list"])
    rbac.create_namespaced_role(
        SPACE, client.V1Role(metadata=client.V1ObjectMeta(name="lister"), rules=[rule])
    )
    binding = client.V1RoleBinding(
        metadata=client.V1ObjectMeta(name="lister"),
        role_ref=client.V1RoleRef(
            api_group="rbac.authorization.k8s.io", kind="Role", name="lister"
        ),
        subjects=[
            client.RbacV1Subject(kind="ServiceAccount", name="robot", namespace=SPACE)
        ],
    )
    rbac.create_namespaced_role_binding(SPACE, binding)
    assert robot.list_namespaced_config_map(SPACE).items
    assert [role.metadata.name for role in rbac.list_namespaced_role(SPACE).items] == ["lister"]
    assert "view" in [role.metadata.name for role in rbac.list_cluster_role().items]
    review = client.AuthorizationV1Api(api).create_self_subject_access_review(
        client.V1SelfSubjectAccessReview(
            spec=client.V1SelfSubjectAccessReviewSpec(
                resource_attributes=client.V1ResourceAttributes(
                    verb="delete", resource="configmaps", namespace=SPACE
                )
            )
        )
    )
    assert review.status.allowed is True, review


def quotas(core, **_):
    core.create_namespace(
        client.V1Namespace(metadata=client.V1ObjectMeta(name="python-quota"))
    )
    quota = client.V1ResourceQuota(
        metadata=client.V1ObjectMeta(name="few"),
        spec=client.V1ResourceQuotaSpec(hard={"count/configmaps": "1"}),
    )
    core.create_namespaced_resource_quota("python-quota", quota)
    core.create_namespaced_config_map("python-quota", config_map("one"))
    refused(
        403, "exceeded quota", core.create_namespaced_config_map, "python-quota", config_map("two")
    )
    [read] = core.list_namespaced_resource_quota("python-quota").items
    assert read.spec.hard == {"count/configmaps": "1"}, read
    core.delete_namespace("python-quota")


def events(core, **_):
    event = client.CoreV1Event(
        metadata=client.V1ObjectMeta(name="seen.1"),
        involved_object=client.V1ObjectReference(
            api_version="v1", kind="ConfigMap", name="plain", namespace=SPACE
        ),
        reason="Seen",
        message="by a test",
        type="Normal",
    )
    core.create_namespaced_event(SPACE, event)
    found = core.list_namespaced_event(
        SPACE, field_selector="involvedObject.name=plain,reason=Seen"
    )
    assert [item.message for item in found.items] == ["by a test"], found


def lists(core, **_):
    for number in range(7):
        core.create_namespaced_config_map(
            SPACE, config_map(f"page-{number}", labels={"book": "yes"})
        )
    names, token = [], None
    while True:
        page = core.list_namespaced_config_map(
            SPACE, label_selector="book=yes", limit=3, _continue=token
        )
        assert len(page.items) <= 3, page
        names += [item.metadata.name for item in page.items]
        token = page.metadata._continue
        if not token:
            break
        if len(names) == 3:
            assert page.metadata.remaining_item_count in (4, None), page.metadata
            # Pages are of one moment, whatever happens meanwhile.
            core.create_namespaced_config_map(
                SPACE, config_map("page-55", labels={"book": "yes"})
            )
    assert names == [f"page-{number}" for number in range(7)], names
    one = core.list_namespaced_config_map(SPACE, field_selector="metadata.name=page-3")
    assert [item.metadata.name for item in one.items] == ["page-3"]
    refused(400, "", core.list_namespaced_config_map, SPACE, label_selector="((")
    everywhere = core.list_config_map_for_all_namespaces(label_selector="book")
    assert len(everywhere.items) == 8, len(everywhere.items)
    core.delete_collection_namespaced_config_map(SPACE, label_selector="book=yes")
    assert not core.list_namespaced_config_map(SPACE, label_selector="book").items


def watches(core, **_):
    start = core.list_namespaced_config_map(SPACE).metadata.resource_version
    core.create_namespaced_config_map(SPACE, config_map("watched", {"n": "0"}))
    for number in range(1, 4):
        core.patch_namespaced_config_map("watched", SPACE, {"data": {"n": str(number)}})
    core.delete_namespaced_config_map("watched", SPACE)
    seen = []
    watcher = watch.Watch()
    for event in watcher.stream(
        core.list_namespaced_config_map,
        SPACE,
        resource_version=start,
        field_selector="metadata.name=watched",
        timeout_seconds=30,
    ):
        seen.append((event["type"], event["object"].data.get("n")))
        if len(seen) == 2:
            break
    # Resumed where it was left.
    for event in watch.Watch().stream(
        core.list_namespaced_config_map,
        SPACE,
        resource_version=event["object"].metadata.resource_version,
        field_selector="metadata.name=watched",
        timeout_seconds=30,
    ):
        seen.append((event["type"], event["object"].data.get("n")))
        if event["type"] == "DELETED":
            break
    expected = [("ADDED", "0"), ("MODIFIED", "1"), ("MODIFIED", "2"), ("MODIFIED", "3")]
    assert seen == expected + [("DELETED", "3")], seen


def live_watch(core, **_):
    """A change reaches those who watch already; the watch begins with what is there."""
    began, seen = threading.Event(), []

    def follow():
        for event in watch.Watch().stream(
            core.list_namespaced_config_map,
            SPACE,
            field_selector="metadata.name=live",
            timeout_seconds=30,
        ):
            seen.append(event["type"])
            began.set()
            if event["type"] == "DELETED":
                return

    core.create_namespaced_config_map(SPACE, config_map("live"))
    thread = threading.Thread(target=follow)
    thread.start()
    assert began.wait(30), "the watch did not begin"
    core.delete_namespaced_config_map("live", SPACE)
    thread.join(30)
    assert seen == ["ADDED", "DELETED"], seen


def deletions(core, **_):
    owner = core.create_namespaced_config_map(SPACE, config_map("owner"))
    reference = client.V1OwnerReference(
        api_version="v1",
        kind="ConfigMap",
        name="owner",
        uid=owner.metadata.uid,
        block_owner_deletion=True,
    )
    core.create_namespaced_config_map(
        SPACE, config_map("child", owner_references=[reference])
    )
    wrong = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="other"))
    refused(409, "Conflict", core.delete_namespaced_config_map, "owner", SPACE, body=wrong)
    start = core.list_namespaced_config_map(SPACE).metadata.resource_version
    core.delete_namespaced_config_map(
        "owner", SPACE, body=client.V1DeleteOptions(propagation_policy="Foreground")
    )
    gone = []
    for event in watch.Watch().stream(
        core.list_namespaced_config_map, SPACE, resource_version=start, timeout_seconds=30
    ):
        if event["type"] == "DELETED":
            gone.append(event["object"].metadata.name)
        if len(gone) == 2:
            break
    assert gone == ["child", "owner"], gone


def functions(api, artifact, **_):
    """Kinds that the client knows nothing of, found through discovery."""
    dynamic = DynamicClient(api)
    kind = dynamic.resources.get(api_version="hive.dev/v1", kind="Function")
    assert kind.namespaced and "fn" in kind.short_names, kind
    body = {
        "apiVersion": "hive.dev/v1",
        "kind": "Function",
        "metadata": {"name": "greeter"},
        "spec": {"replicas": 1, "artifact": {"sha256": artifact}},
    }
    made = kind.create(body=body, namespace=SPACE)
    assert made.spec.replicas == 1, made
    for event in kind.watch(namespace=SPACE, name="greeter", timeout=60):
        status = event["object"].status
        if status and status.readyReplicas == 1:
            break
    else:
        raise AssertionError("it did not become ready")
    patched = kind.patch(
        name="greeter",
        namespace=SPACE,
        body={"spec": {"replicas": 2}},
        content_type="application/merge-patch+json",
    )
    assert patched.spec.replicas == 2 and patched.metadata.generation == 2, patched
    scale = kind.scale.get(name="greeter", namespace=SPACE)
    assert scale.kind == "Scale" and scale.spec.replicas == 2, scale
    kind.scale.patch(
        name="greeter",
        namespace=SPACE,
        body={"spec": {"replicas": 1}},
        content_type="application/merge-patch+json",
    )
    read = kind.get(name="greeter", namespace=SPACE)
    assert read.spec.replicas == 1, read
    stale = read.to_dict()
    stale["metadata"]["resourceVersion"] = "1"
    try:
        kind.replace(body=stale, namespace=SPACE)
        raise AssertionError("a stale object was taken")
    except ConflictError as error:
        assert error.status == 409
    custom = client.CustomObjectsApi(api)
    listed = custom.list_namespaced_custom_object("hive.dev", "v1", SPACE, "functions")
    assert [item["metadata"]["name"] for item in listed["items"]] == ["greeter"], listed
    custom.patch_namespaced_custom_object(
        "hive.dev", "v1", SPACE, "functions", "greeter", {"metadata": {"labels": {"by": "hand"}}}
    )
    found = kind.get(namespace=SPACE, label_selector="by=hand")
    assert [item.metadata.name for item in found.items] == ["greeter"], found
    kind.delete(name="greeter", namespace=SPACE)
    try:
        kind.get(name="greeter", namespace=SPACE)
        raise AssertionError("it is still there")
    except NotFoundError:
        pass


def several_controllers(artifact, kubeconfig, **_):
    """What one controller took, another shows, whichever the client asks."""
    contents = config.kube_config.KubeConfigMerger(kubeconfig).config.value
    [extension] = contents["clusters"][0]["cluster"]["extensions"]
    servers = extension["extension"]["servers"]
    cores = []
    for server in servers:
        own = client.Configuration.get_default_copy()
        own.host = server
        cores.append(client.CoreV1Api(client.ApiClient(own)))
    made = cores[0].create_namespaced_config_map(SPACE, config_map("shared"))
    for core in cores:
        # Not older than what was made: such a list waits until its controller has it.
        listed = core.list_namespaced_config_map(
            SPACE,
            resource_version=made.metadata.resource_version,
            resource_version_match="NotOlderThan",
        )
        assert "shared" in [item.metadata.name for item in listed.items], core


def the_end(core, **_):
    core.delete_namespace(SPACE)
    for event in watch.Watch().stream(
        core.list_namespace, field_selector=f"metadata.name={SPACE}", timeout_seconds=60
    ):
        if event["type"] == "DELETED":
            return
    refused(404, "NotFound", core.read_namespace, SPACE)


CASES = [
    namespaces,
    config_maps,
    patches,
    server_side_apply,
    secrets,
    service_accounts,
    quotas,
    events,
    lists,
    watches,
    live_watch,
    deletions,
    functions,
    several_controllers,
    the_end,
]


def main():
    kubeconfig, artifact = sys.argv[1:]
    config.load_kube_config(kubeconfig)
    api = client.ApiClient()
    known = {
        "api": api,
        "core": client.CoreV1Api(api),
        "artifact": artifact,
        "kubeconfig": kubeconfig,
    }
    print(f"kubernetes {kubernetes.__version__}")
    failed = []
    for case in CASES:
        try:
            case(**known)
            print(f"  ok      {case.__name__}", flush=True)
        except Exception:
            traceback.print_exc()
            print(f"  FAILED  {case.__name__}", flush=True)
            failed.append(case.__name__)
    if failed:
        sys.exit(f"{len(failed)} of {len(CASES)} cases failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
