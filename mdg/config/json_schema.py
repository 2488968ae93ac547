"""The JSON schema of the configuration, by which an editor completes and checks keys."""

from __future__ import annotations

from typing import Any

from mdg.config.schema import RunConfig


def json_schema() -> dict[str, Any]:
    """The schema of a YAML file under ``configs/``, generated from the typed configuration.

    A file may leave anything to its ``_base_``, so no key is required; a key that does not exist is an error.
    """
    schema = _without_required(RunConfig.model_json_schema())
    schema["properties"]["_base_"] = {
        "description": "File or files to start from, relative to this one; keys given here override theirs.",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "mdg run configuration"}


def _without_required(node: Any) -> Any:
    if isinstance(node, dict):
        # `required` is a keyword where it lists names; a property of that name would be a mapping.
        return {
            key: _without_required(value)
            for key, value in node.items()
            if not (key == "required" and isinstance(value, list))
        }
    return [_without_required(item) for item in node] if isinstance(node, list) else node
