#!/usr/bin/env python3
"""Holds the AsyncAPI document against the AsyncAPI project's JSON Schema, with python-jsonschema, and against the models
of asyncapi3; and follows every reference, also into the JSON Schemas beside it, which must be schemas themselves.

    pip install asyncapi3 jsonschema pyyaml
    tests/peers/asyncapi_models.py SPECS DOCUMENT

SPECS is the directory of the npm package @asyncapi/specs, which the project publishes its schemas in.
Prints how many references there are. Exit code 0 if nothing is wrong, 1 if something is, 2 on wrong usage.
"""

import json
import sys
import warnings
from pathlib import Path

try:
    import yaml
    from jsonschema import Draft7Validator, Draft202012Validator
    from jsonschema.exceptions import SchemaError, best_match

    with warnings.catch_warnings():
        # A field of theirs hides one of pydantic's.
        warnings.simplefilter("ignore")
        from asyncapi3.models.asyncapi import AsyncAPI3
    from pydantic import ValidationError
except ImportError as error:
    sys.exit(f"{error}; run tests/run, which installs what the tests need")


def references(value):
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def follow(value, pointer: str):
    """What a JSON pointer (RFC 6901) leads to."""
    for part in pointer.split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def against_official_schema(specs: Path, document):
    schema = json.loads((specs / "schemas" / f"{document['asyncapi']}.json").read_text())
    for error in Draft7Validator(schema).iter_errors(document):
        # Most of the schema is "a reference or this": the best match is the one that says something.
        inner = best_match([error])
        yield f"official schema: {inner.json_path}: {inner.message[:300]}"


def against_models(document):
    try:
        AsyncAPI3.model_validate(document)
    except ValidationError as invalid:
        for error in invalid.errors():
            yield f"asyncapi3: {'.'.join(map(str, error['loc']))}: {error['msg']}"


def against_references(path: Path, document, found):
    schemas = {}
    for reference in found:
        file, _, pointer = reference.partition("#")
        try:
            if file and file not in schemas:
                schemas[file] = json.loads((path.parent / file).read_text())
                Draft202012Validator.check_schema(schemas[file])
            follow(schemas[file] if file else document, pointer)
        except (OSError, KeyError, IndexError, ValueError) as error:
            yield f"{reference}: leads nowhere: {error!r}"
        except SchemaError as error:
            yield f"{reference}: no JSON Schema: {error.json_path}: {error.message[:300]}"


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    specs, path = Path(sys.argv[1]), Path(sys.argv[2])
    document = yaml.safe_load(path.read_text())
    found = sorted(set(references(document)))
    wrong = [
        *against_official_schema(specs, document),
        *against_models(document),
        *against_references(path, document, found),
    ]
    for text in wrong:
        print(f"{path}: {text}", file=sys.stderr)
    if not wrong:
        print(f"{path}: {len(found)} references")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
