"""The trial in a machine with control groups of version 2 and an older kernel, emulated in software."""

import json
from typing import Any

# With proofs it is some 80 starts of workers; each takes seconds of an emulated processor.
SECONDS = 200.0
SECONDS_WITH_PROOFS = 1500.0


def examine(*, proofs: bool) -> dict[str, Any]:
    """The report of mode v2. Raises what `vm.machine.run` does.

    `vm` is not carried into places with this package, so it is looked for only here.
    """
    from vm import machine

    command = ["python3", "-m", "attacks", "--mode", "v2", "--json", *([] if proofs else ["--no-proofs"])]
    answer = machine.run(command, seconds=SECONDS_WITH_PROOFS if proofs else SECONDS)
    report = next((line for line in answer.lines if line.startswith("{")), None)
    if report is None:
        raise RuntimeError("\n".join(answer.lines[-40:]))
    return dict(json.loads(report)["v2"])
