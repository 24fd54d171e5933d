"""What a cluster lacks for the platform itself, as infra/k8s applies it: its version, secrets, images by digest, workers that are up."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from components.adapters.job_kinds.needs import Lack, secret_lacks, unseen
from components.adapters.job_kinds.offer import Get

OLDEST = (1, 33)  # the first whose Indexed Jobs retry each index by itself, as an evaluation asks for (KEP-3850)
# secrets that the base and what is filled beside it name, and their keys; those that pods may do without are left out
SECRETS: Mapping[str, tuple[str, ...]] = {
    "actwright-s3": ("access-key", "secret-key"),
    "actwright-postgres": ("password",),
    "policy-service-tokens": ("tokens.json", "drain.token"),
    "console-tokens": ("tokens.json",),
    "console-tls": ("tls.crt", "tls.key"),
}


def platform_lacks(get: Get, namespace: str) -> list[Lack]:
    """What is missing of the platform in `namespace`, as far as this account may look."""
    found = [*_version(get)]
    if get(f"/api/v1/namespaces/{namespace}").status == 404:
        return [*found, Lack(what=f"namespace {namespace}", found="there is none", fix="kubectl apply -k infra/k8s/overlays/...")]
    for name, keys in SECRETS.items():
        found += secret_lacks(get, namespace, name, keys)
    return [*found, *_deployments(get, namespace)]


def _version(get: Get) -> Iterator[Lack]:
    answer = get("/version")
    if not answer.is_there:
        yield unseen("the version of Kubernetes", answer)
        return
    told = answer.document
    numbers = tuple(int(re.sub(r"\D.*", "", told[part]) or 0) for part in ("major", "minor"))
    if numbers < OLDEST:
        newest = ".".join(map(str, OLDEST))
        yield Lack(what="a Kubernetes that is new enough", found=f"it is {told['gitVersion']}", fix=f"upgrade to {newest} or newer")


def _deployments(get: Get, namespace: str) -> Iterator[Lack]:
    answer, pods = get(f"/apis/apps/v1/namespaces/{namespace}/deployments"), get(f"/api/v1/namespaces/{namespace}/pods")
    if not answer.is_there:
        yield unseen(f"deployments in namespace {namespace}", answer)
        return
    running = _running_images(pods.document["items"]) if pods.is_there else {}
    for one in answer.document["items"]:
        name, wanted = one["metadata"]["name"], one["spec"].get("replicas", 1)
        ready = one.get("status", {}).get("readyReplicas", 0)
        if ready < wanted:
            fix = f"kubectl -n {namespace} describe deployment {name}"
            yield Lack(what=f"{wanted} ready pods of {name}", found=f"{ready} are ready", fix=fix, certain=False)
        for container in one["spec"]["template"]["spec"]["containers"]:
            image = container["image"]
            if "@sha256:" not in image:
                known = running.get(image)
                fix = f"pin {known}" if known else "name its digest in the overlay (`images: - digest: sha256:...`)"
                told = "it is a tag, which may name another image after a restart"
                yield Lack(what=f"a digest of the image {image} of {name}", found=told, fix=fix, certain=False)


def _running_images(pods: list[Any]) -> dict[str, str]:
    """Image as a pod names it -> the same by the digest that runs."""
    found: dict[str, str] = {}
    for pod in pods:
        images = {one["name"]: one["image"] for one in pod["spec"]["containers"]}
        for status in pod.get("status", {}).get("containerStatuses", []):
            digest = re.search(r"[^/]*@?(sha256:[0-9a-f]{64})$", status.get("imageID", ""))
            if digest and status["name"] in images:
                image = images[status["name"]]
                name = image.rsplit(":", 1)[0] if ":" in image.rsplit("/", 1)[-1] else image
                found[image] = f"{name}@{digest[1]}"
    return found
