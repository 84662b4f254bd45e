#!/usr/bin/env python3
"""Holds everything that a real MQTT client recorded against the JSON Schemas, with python-jsonschema.

    pip install jsonschema
    mosquitto_sub -t 'vigil/v1/#' -F %j ... > RECORDING
    tests/peers/validate.py PLAN SCHEMAS

PLAN has a JSON value a line: {"schema": NAME, "topic": TOPIC, "payload": TEXT}. An empty payload is a tombstone. The
payload of an envelope is validated too, against the schema that the line names under "inner".
Prints how many messages each schema saw. Exit code 0 if all are valid, 1 if not, 2 on wrong usage.
"""

import base64
import json
import sys
from collections import Counter
from pathlib import Path

try:
    from jsonschema import Draft202012Validator, FormatChecker
except ImportError:
    sys.exit("python3 has no jsonschema; run tests/run, which installs what the tests need")


def validator(directory: Path, name: str) -> Draft202012Validator:
    schema = json.loads((directory / f"{name}.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=FormatChecker())


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    plan, directory = Path(sys.argv[1]), Path(sys.argv[2])
    validators = {}
    seen = Counter()
    wrong = []
    for line in plan.read_text().splitlines():
        message = json.loads(line)
        if not message["payload"]:
            seen["tombstone"] += 1
            continue
        value = json.loads(message["payload"])
        pairs = [(message["schema"], value)]
        if message.get("inner"):
            pairs.append((message["inner"], json.loads(base64.b64decode(value["payload"], validate=True))))
        for name, instance in pairs:
            if name not in validators:
                validators[name] = validator(directory, name)
            seen[name] += 1
            for error in validators[name].iter_errors(instance):
                wrong.append(f"{message['topic']}: {name}: {error.json_path}: {error.message}")
    print(json.dumps(seen, sort_keys=True))
    for text in wrong:
        print(text, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
