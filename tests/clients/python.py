"""The Python client of Kubernetes against the cluster that KUBECONFIG names.

The static client creates, lists, watches, patches and deletes typed objects; the dynamic one finds its
resources by discovery and applies on the server's side. Prints "passed" at the end, or fails where an
answer is not the one that upstream's API server gives.
"""

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError

NAMESPACE = "default"
DEADLINE = 30


def deployment(name):
    labels = {"app": name}
    container = client.V1Container(name="main", image="registry.example/app:1")
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels=labels),
        spec=client.V1PodSpec(containers=[container]),
    )
    return client.V1Deployment(
        metadata=client.V1ObjectMeta(name=name, labels=labels),
        spec=client.V1DeploymentSpec(
            replicas=0,
            selector=client.V1LabelSelector(match_labels=labels),
            template=template,
        ),
    )


def config_map(name, labels=None, **data):
    return client.V1ConfigMap(
        metadata=client.V1ObjectMeta(name=name, labels=labels), data=data
    )


def expect_status(status, reason, call):
    try:
        call()
    except ApiException as error:
        assert error.status == status, error
        assert f'"reason":"{reason}"' in error.body.replace(" ", ""), error.body
    else:
        raise AssertionError(f"expected {status} {reason}")


def creates_lists_and_deletes(core):
    for name, tier in (("one", "front"), ("two", "back"), ("three", "front")):
        created = core.create_namespaced_config_map(
            NAMESPACE, config_map(name, {"tier": tier}, colour="blue")
        )
        assert created.metadata.uid and created.metadata.creation_timestamp
    front = core.list_namespaced_config_map(NAMESPACE, label_selector="tier=front")
    assert [item.metadata.name for item in front.items] == ["one", "three"], front
    one = core.list_config_map_for_all_namespaces(field_selector="metadata.name=one")
    assert len(one.items) == 1, one
    page = core.list_namespaced_config_map(NAMESPACE, limit=1)
    rest = core.list_namespaced_config_map(
        NAMESPACE, limit=500, _continue=page.metadata._continue
    )
    assert len(page.items) == 1 and page.metadata.remaining_item_count == len(rest.items)
    again = config_map("one")
    expect_status(
        409, "AlreadyExists", lambda: core.create_namespaced_config_map(NAMESPACE, again)
    )
    core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="tier")
    expect_status(
        404, "NotFound", lambda: core.read_namespaced_config_map("one", NAMESPACE)
    )


def patches_strategically(apps):
    created = apps.create_namespaced_deployment(NAMESPACE, deployment("patched"))
    assert created.spec.strategy.type == "RollingUpdate", created.spec
    env = [{"name": "A", "value": "1"}]
    containers = [{"name": "main", "env": env}]
    patch = {"spec": {"template": {"spec": {"containers": containers}}}}
    patched = apps.patch_namespaced_deployment("patched", NAMESPACE, patch)
    (container,) = patched.spec.template.spec.containers
    assert container.image == "registry.example/app:1", container
    assert container.env[0].value == "1", container
    scaled = apps.patch_namespaced_deployment_scale(
        "patched", NAMESPACE, {"spec": {"replicas": 0}}
    )
    assert scaled.kind == "Scale" and scaled.status.selector == "app=patched", scaled
    stale = created
    stale.spec.replicas = 0
    expect_status(
        409,
        "Conflict",
        lambda: apps.replace_namespaced_deployment("patched", NAMESPACE, stale),
    )
    options = client.V1DeleteOptions(propagation_policy="Foreground")
    apps.delete_namespaced_deployment("patched", NAMESPACE, body=options)


def watches(core):
    listed = core.list_namespaced_config_map(NAMESPACE)
    core.create_namespaced_config_map(NAMESPACE, config_map("seen", step="1"))
    core.patch_namespaced_config_map("seen", NAMESPACE, {"data": {"step": "2"}})
    core.delete_namespaced_config_map("seen", NAMESPACE)
    seen = []
    stream = watch.Watch()
    for event in stream.stream(
        core.list_namespaced_config_map,
        NAMESPACE,
        resource_version=listed.metadata.resource_version,
        field_selector="metadata.name=seen",
        timeout_seconds=DEADLINE,
    ):
        seen.append((event["type"], event["object"].data["step"]))
        if event["type"] == "DELETED":
            stream.stop()
    assert seen == [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")], seen


def applies_what_discovery_names(api_client):
    dynamic_client = dynamic.DynamicClient(api_client)
    deployments = dynamic_client.resources.get(api_version="apps/v1", kind="Deployment")
    assert deployments.namespaced and "deploy" in deployments.short_names
    body = api_client.sanitize_for_serialization(deployment("applied"))
    body |= {"apiVersion": "apps/v1", "kind": "Deployment"}
    applied = deployments.server_side_apply(
        body=body, namespace=NAMESPACE, field_manager="one"
    )
    managers = {entry.manager: entry.operation for entry in applied.metadata.managedFields}
    assert managers["one"] == "Apply", managers
    body["spec"]["replicas"] = 1
    try:
        deployments.server_side_apply(
            body=body, namespace=NAMESPACE, field_manager="two"
        )
    except ConflictError as error:
        assert "Apply failed with 1 conflict" in str(error.body), error.body
    else:
        raise AssertionError("another manager's field was taken")
    forced = deployments.server_side_apply(
        body=body, namespace=NAMESPACE, field_manager="two", force_conflicts=True
    )
    assert forced.spec.replicas == 1
    found = deployments.get(namespace=NAMESPACE, label_selector="app=applied")
    assert [item.metadata.name for item in found.items] == ["applied"]
    deployments.delete(name="applied", namespace=NAMESPACE)
    try:
        deployments.get(name="applied", namespace=NAMESPACE)
    except NotFoundError:
        return
    raise AssertionError("the deployment is still there")


def main():
    config.load_kube_config()
    api_client = client.ApiClient()
    core, apps = client.CoreV1Api(api_client), client.AppsV1Api(api_client)
    assert client.VersionApi(api_client).get_code().major == "1"
    creates_lists_and_deletes(core)
    patches_strategically(apps)
    watches(core)
    applies_what_discovery_names(api_client)
    print("passed")


if __name__ == "__main__":
    main()
