"""The JSON Schema of the policy file, for editors and for anybody who generates policies.

It is looser than `load`: it knows each key and value, not whether the parts agree.
"""

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from mcphost.policy.clients import CLIENT_KEYS
from mcphost.policy.models import Policy
from mcphost.policy.runtime_settings import RuntimeSettings
from mcphost.policy.servers import Server
from mcphost.policy.volumes import SHORT_FORM

_DIALECT = "https://json-schema.org/draft/2020-12/schema"

_CLIENT_SCHEMAS: dict[str, dict[str, object]] = {
    "type": {"const": "stdio"},
    "disabled": {"type": "boolean", "description": "true leaves the entry out."},
    "description": {"type": "string"},
    "alwaysAllow": {"type": "array"},
    "autoApprove": {"type": "array"},
}


def json_schema() -> dict[str, Any]:
    """The schema of a policy file, with patterns, descriptions, and defaults as one would write them."""
    schema = Policy.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    for model in _models_in(Policy):
        part = schema if model is Policy else definitions[model.__name__]
        _show_defaults(part, model)
    for key in CLIENT_KEYS:
        note = {"description": "Written by other clients; has no effect here."}
        definitions[Server.__name__]["properties"][key] = note | _CLIENT_SCHEMAS[key]
    volumes = definitions[Server.__name__]["properties"]["volumes"]
    volumes["items"] = {"anyOf": [volumes["items"], {"type": "string", "pattern": f"^{SHORT_FORM}$"}]}
    for part in (schema, *definitions.values()):
        _drop_titles(part)
        _close_maps(part)
    return {"$schema": _DIALECT, "title": "mcphost policy"} | schema


def _models_in(kind: object) -> Iterator[type[BaseModel]]:
    """Every model in an annotation, and in the fields of those models."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
        for field in kind.model_fields.values():
            yield from _models_in(field.annotation)
    for argument in get_args(kind):
        yield from _models_in(argument)


def _show_defaults(part: dict[str, Any], model: type[BaseModel]) -> None:
    """Give each property the default as it would be written; a default of nothing is not shown."""
    shown = model.model_construct().model_dump(mode="json", by_alias=True, exclude_none=True)
    for name, field in model.model_fields.items():
        alias = field.alias or name
        entry = part["properties"][alias]
        if model is not RuntimeSettings:
            _drop_null(entry)
        entry.pop("default", None)
        # A whole model as the default would only repeat what its own properties say.
        if not field.is_required() and alias in shown and not any(_models_in(field.annotation)):
            entry["default"] = shown[alias]


def _drop_null(entry: dict[str, Any]) -> None:
    """Only `runtime` has keys for which null can be written; elsewhere it is how Python says "not given"."""
    options = [option for option in entry.get("anyOf", ()) if option != {"type": "null"}]
    if len(options) == 1:
        del entry["anyOf"]
        entry.update(options[0])


def _close_maps(part: object) -> None:
    """Where the names in a map have a pattern, no other names are allowed."""
    if isinstance(part, dict):
        if "patternProperties" in part:
            part["additionalProperties"] = False
        for inner in part.values():
            _close_maps(inner)
    elif isinstance(part, list):
        for inner in part:
            _close_maps(inner)


def _drop_titles(part: dict[str, Any]) -> None:
    """Pydantic names every property a second time."""
    part.pop("title", None)
    for entry in part.get("properties", {}).values():
        entry.pop("title", None)
