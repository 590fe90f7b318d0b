"""`python -m benchmarks.spawn`: what a start costs beside subprocess, bubblewrap and a zygote, and what starts leave.

All ways take turns, one start each (then one batch of 20 at once each), so that whatever else the machine does meets
all of them alike; what is reported is the median of the ratios within the turns. Writes
`benchmarks/results/spawn.json` and `spawn.md`.
"""

import argparse
import contextlib
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.first_answer import Answered, first_answers
from benchmarks.starters import BWRAP, Command, Sandbox, Starter
from sandbox import Spawner

HERE = Path(__file__).parent
PROGRAM = ("/usr/bin/echo", "x")
WARM_STARTS = 30
REST_SECONDS = 1.0
PARTS = 10
MEMORY = "anonymous KiB of the fork server"
MAX_GROWTH_KIB = 256
MEASURES = ("first output", "end")


def one_by_one(starters: list[Starter], turns: int) -> dict[str, dict[str, list[float]]]:
    """Milliseconds by starter and measure, `turns` of each."""
    times: dict[str, dict[str, list[float]]] = {
        each.name: {name: [] for name in MEASURES} for each in starters
    }
    for _ in range(turns):
        for starter in random.sample(starters, len(starters)):
            start = starter.begin(PROGRAM)
            starter.finish([start])
            times[starter.name]["first output"].append(round(start.first * 1e3, 3))
            times[starter.name]["end"].append(round(start.ended * 1e3, 3))
    return times


def at_once(starters: list[Starter], batches: int, size: int) -> dict[str, dict[str, list[float]]]:
    """Milliseconds per start, by starter, of `batches` batches of `size` starts begun together."""
    times: dict[str, dict[str, list[float]]] = {each.name: {"per start": []} for each in starters}
    for _ in range(batches):
        for starter in random.sample(starters, len(starters)):
            began = time.perf_counter()
            starter.finish([starter.begin(PROGRAM) for _ in range(size)])
            times[starter.name]["per start"].append(round((time.perf_counter() - began) / size * 1e3, 3))
    return times


def census(spawner: Spawner) -> dict[str, int]:
    """What a leak would show in."""
    status = dict(
        line.split(":", 1)
        for line in Path(f"/proc/{spawner.pid}/status").read_text().splitlines()
        if ":" in line
    )
    return {
        "processes": len(Path(f"/proc/{spawner.pid}/task/{spawner.pid}/children").read_text().split()),
        "descriptors of the fork server": len(os.listdir(f"/proc/{spawner.pid}/fd")),
        "descriptors here": len(os.listdir("/proc/self/fd")),
        "groups": sum(1 for _ in Path("/sys/fs/cgroup").glob(f"**/sandbox.*.{spawner.pid}.*/*/")),
        "mounts here": len(Path("/proc/self/mountinfo").read_text().splitlines()),
        "mounts of the fork server": len(Path(f"/proc/{spawner.pid}/mountinfo").read_text().splitlines()),
        MEMORY: int(status["RssAnon"].split()[0]),
    }


def leaks(before: dict[str, int], after: dict[str, int], memory: list[int]) -> dict[str, int]:
    """What there is more of. Memory settles over the first thousand starts: the last two parts say whether it does."""
    found = {
        name: after[name] - before[name] for name in before if name != MEMORY and after[name] > before[name]
    }
    grown = memory[-1] - memory[-3]
    return found | ({MEMORY: grown} if grown > MAX_GROWTH_KIB else {})


def servers(answers: dict[str, list[Answered]]) -> list[dict[str, object]]:
    """One row for each way to start a server written with the Python SDK."""
    plain = [each.milliseconds for each in answers["subprocess"]]
    return [
        {
            "starter": name,
            "p50 ms": round(statistics.median(each.milliseconds for each in all_of), 1),
            "subprocess / this": round(
                statistics.median(base / each.milliseconds for base, each in zip(plain, all_of, strict=True)),
                1,
            ),
            "private MiB": round(statistics.median(each.private_kib for each in all_of) / 1024, 1),
        }
        for name, all_of in answers.items()
    ]


def summary(times: dict[str, dict[str, list[float]]], base: str) -> list[dict[str, object]]:
    """One row for each starter and measure, with the median of its ratios to `base` turn by turn."""
    rows: list[dict[str, object]] = []
    for name, measures in times.items():
        for measure, values in measures.items():
            ratios = [mine / theirs for mine, theirs in zip(values, times[base][measure], strict=True)]
            cuts = statistics.quantiles(values, n=100)
            rows.append(
                {
                    "starter": name,
                    "measure": measure,
                    "p50 ms": round(statistics.median(values), 2),
                    "p99 ms": round(cuts[98], 2),
                    f"x {base}": round(statistics.median(ratios), 2),
                }
            )
    return rows


def table(title: str, rows: list[dict[str, object]]) -> str:
    """As Markdown."""
    keys = list(rows[0])
    lines = [f"### {title}", "", f"| {' | '.join(keys)} |", f"|{'---|' * len(keys)}"]
    lines += [f"| {' | '.join(str(row[key]) for key in keys)} |" for row in rows]
    return "\n".join(lines) + "\n"


def facts() -> dict[str, object]:
    """What ran where."""
    bwrap = subprocess.run([BWRAP[0], "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "bubblewrap": bwrap,
        "cpus": os.cpu_count(),
        "load before": round(os.getloadavg()[0], 1),
        "user": "root" if os.geteuid() == 0 else "ordinary",
        "program": " ".join(PROGRAM),
    }


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(prog="benchmarks.spawn")
    parser.add_argument("--starts", type=int, default=1000, help="of ours, one by one, and again at once")
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument(
        "--servers", type=int, default=10, help="starts of a server written with the Python SDK"
    )
    arguments = parser.parse_args()
    if shutil.which(BWRAP[0]) is None:
        sys.exit("bubblewrap is not installed: apt-get install bubblewrap")
    report: dict[str, object] = {"machine": facts()}
    with contextlib.closing(Spawner.start(name="bench")) as spawner:
        starters: list[Starter] = [
            Command("subprocess"),
            Command("bubblewrap", tuple(BWRAP)),
            Sandbox(spawner),
        ]
        one_by_one(starters, WARM_STARTS)
        time.sleep(REST_SECONDS)
        before = census(spawner)
        sequential, memory = one_by_one(starters, 0), []
        for _ in range(PARTS):
            part = one_by_one(starters, arguments.starts // PARTS)
            for name, measure in ((name, measure) for name in part for measure in MEASURES):
                sequential[name][measure] += part[name][measure]
            memory.append(census(spawner)[MEMORY])
        together = at_once(starters, arguments.starts // arguments.at_once, arguments.at_once)
        time.sleep(REST_SECONDS)
        after = census(spawner)
        answers = first_answers(spawner, arguments.servers)
    report |= {"before": before, "after": after, MEMORY: memory, "leaks": leaks(before, after, memory)}
    tables = {
        f"One by one, {arguments.starts} turns": summary(sequential, "bubblewrap"),
        f"{arguments.at_once} at once, {arguments.starts // arguments.at_once} batches": summary(
            together, "bubblewrap"
        ),
    }
    tables["A Python SDK server, from its start to its first answer"] = servers(answers)
    text = "\n".join(table(title, rows) for title, rows in tables.items())
    text = f"{text}\nLeft over after all of it: {report['leaks'] or 'nothing'}.\n\n{json.dumps(report['machine'])}\n"
    print(text)
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    (results / "spawn.md").write_text(text)
    raw = {
        "one by one": sequential,
        "at once": together,
        "first answer": {
            name: [round(each.milliseconds, 1) for each in all_of] for name, all_of in answers.items()
        },
    }
    (results / "spawn.json").write_text(json.dumps(report | {"milliseconds": raw}) + "\n")
    sys.exit(bool(report["leaks"]))


if __name__ == "__main__":
    main()
