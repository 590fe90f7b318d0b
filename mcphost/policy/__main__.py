"""`python -m mcphost.policy` prints the JSON Schema of the policy file."""

import json
import sys

from mcphost.policy.schema import json_schema

if __name__ == "__main__":
    sys.stdout.write(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n")
