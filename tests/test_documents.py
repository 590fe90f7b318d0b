"""What the documents promise about the sandbox is complete, and their examples run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mcphost.policy import DEFAULT_REQUIRE
from sandbox import LAYERS
from sandbox.doctor.diagnosis import NEEDS

ROOT = Path(__file__).parents[1]
SANDBOX = (ROOT / "docs" / "sandbox.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", SANDBOX, re.MULTILINE | re.DOTALL)


def rows(text: str) -> dict[str, list[str]]:
    """The rows of tables whose first cell is one word in code."""
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines()]
    return {row[0].strip("`"): row[1:] for row in cells if re.fullmatch(r"`[\w.-]+`", row[0])}


def test_the_table_of_layers_has_each_layer_once_in_order_with_every_column():
    table = SANDBOX.partition("## Layers")[2].partition("###")[0]
    assert [row for row in rows(table) if row in LAYERS] == list(LAYERS)
    assert all(len(cells) == 4 and all(cells) for cells in rows(table).values())


def test_the_kernel_versions_are_those_that_the_doctor_goes_by():
    for layer, cells in rows(SANDBOX.partition("## Layers")[2].partition("###")[0]).items():
        if not layer.startswith("cgroup."):
            assert cells[1].startswith("{}.{}".format(*NEEDS[layer])), layer


def test_the_manual_of_the_policy_names_every_layer_and_those_required_by_default():
    section = (ROOT / "docs" / "policy.md").read_text().partition("### `require`")[2].partition("\n## ")[0]
    before, _, after = section.partition("Also known:")
    assert re.findall(r"`([\w.-]+)`", before.partition("By default:")[2]) == list(DEFAULT_REQUIRE)
    assert set(re.findall(r"`([\w.-]+)`", after)) & set(LAYERS) == set(LAYERS) - set(DEFAULT_REQUIRE)


def test_there_are_examples():
    assert len(EXAMPLES) >= 3


@pytest.mark.kernel
@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_runs_as_it_stands(example, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
