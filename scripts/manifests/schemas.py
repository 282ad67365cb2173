"""Rendered objects against the schemas of Kubernetes, for the kinds that it brings itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import kubernetes_validate

VERSIONS = ("1.33", "1.34", "1.35", "1.36", "1.37")
_GROUPS = {
    "apps",
    "autoscaling",
    "policy",
    "networking.k8s.io",
    "rbac.authorization.k8s.io",
    "scheduling.k8s.io",
}


def built_in(objects: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the different objects among these that need no custom resource definition."""
    texts = {json.dumps(found, sort_keys=True) for found in objects if _is_built_in(found["apiVersion"])}
    return [json.loads(text) for text in sorted(texts)]


def schema_errors(objects: Iterable[Mapping[str, Any]], versions: Iterable[str] = VERSIONS) -> Iterator[str]:
    """Yield what is wrong with objects of Kubernetes' own kinds, fields it does not know included."""
    for version in versions:
        for found in objects:
            if error := _schema_error(found, version):
                yield f"Kubernetes {version}: {found['kind']} {found['metadata']['name']}: {error}"


def _schema_error(found: Mapping[str, Any], version: str) -> str:
    try:
        kubernetes_validate.validate(dict(found), version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return " ".join(str(error).split())[:300]
    return ""


def _is_built_in(api_version: str) -> bool:
    group, slash, _ = api_version.partition("/")
    return not slash or group in _GROUPS
