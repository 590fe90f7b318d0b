"""What is found out before anything runs: a policy resolved on this machine, and whether what it asks for can be had."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from mcphost.errors import PolicyInvalid, Problem, StartRefused
from mcphost.grants import refuse_failing_tests
from mcphost.plan import (
    Plan,
    compile_plan,
    contested_mounts,
    kept_places,
    mounts_of_state,
    sized_places,
    worker_name,
)
from mcphost.policy import (
    Fault,
    Policy,
    Program,
    Secret,
    Server,
    certificate_bundle,
    find_entry,
    resolve_program,
)
from mcphost.workers.settings import SHARED
from sandbox import (
    EGRESS_LAYERS,
    Features,
    LayerStatus,
    SandboxError,
    probe_sizes,
    unmet,
)

# Where programs are looked for besides the directory of the running Python, if PATH is not set.
_DEFAULT_PATH: Final = "/usr/local/bin:/usr/bin:/bin"


def make_plan(policy: Policy, environ: Mapping[str, str]) -> Plan:
    """Resolve a policy on this machine: look up its programs, compile.

    Raises:
        PolicyInvalid: a test of its own fails, or a program is not to be had; all are listed.
    """
    refuse_failing_tests(policy)
    programs = _find_programs(policy, environ)
    problems: list[Problem] = []
    plan = compile_plan(policy, programs, os.path.realpath, certificate_bundle(environ))
    for name, source, place in contested_mounts(plan):
        why = f"is granted {source}, which lies below {place}, where workers may write; keep them apart"
        problems.append(policy.problem(("mcpServers", name), Fault(why)))
    state_dir = None if policy.runtime.state_dir is None else os.path.realpath(policy.runtime.state_dir)
    if state_dir is not None:
        for name, source in mounts_of_state(plan, state_dir):
            why = f"is granted {source}, where the runtime keeps what belongs to tenants; keep it apart from {state_dir}"
            problems.append(policy.problem(("mcpServers", name), Fault(why)))
    key, audit = policy.runtime.seal_key, policy.audit
    if key is not None and key.from_file is not None:
        problems += _granted(plan, key.from_file, "where runtime.sealKey is read from")
    if audit is not None:
        problems += _granted(plan, audit.file, "where the audit is kept")
    for name, planned in plan.servers.items():
        problems.extend(_missing_sources(policy, name, planned.server))
        kept = kept_places(state_dir, "x", name, planned.server)
        try:
            planned.sandbox.fill(worker_name(name, SHARED), _PLACEHOLDERS, kept)
        except SandboxError as error:
            problems.append(policy.problem(("mcpServers", name), Fault(f"cannot be confined: {error}")))
    if problems:
        raise PolicyInvalid(problems)
    return plan


def _granted(plan: Plan, path: str, what: str) -> list[Problem]:
    """Servers whose workers could reach what is the runtime's alone."""
    return [
        plan.policy.problem(
            ("mcpServers", name), Fault(f"is granted {source}, {what}; keep it apart from {path}")
        )
        for name, source in mounts_of_state(plan, os.path.realpath(path))
    ]


def _find_programs(policy: Policy, environ: Mapping[str, str]) -> dict[str, Program]:
    """What each server's command is. Raises `PolicyInvalid` with all that are not to be had."""
    programs: dict[str, Program] = {}
    problems = []
    for name, server in policy.servers.items():
        granted = policy.profile(server.profile).read
        try:
            programs[name] = resolve_program(
                server.command,
                server.args,
                search_path=environ.get("PATH", _DEFAULT_PATH),
                granted=granted,
            )
            if server.spawn == "zygote":
                programs[name] = replace(programs[name], entry=find_entry(programs[name].argv))
        except Fault as fault:
            problems.append(policy.problem(("mcpServers", name), fault))
    if problems:
        raise PolicyInvalid(problems)
    return programs


def _missing_sources(policy: Policy, name: str, server: Server) -> list[Problem]:
    """Volumes whose source is not there, or is no file and no directory."""
    problems = []
    for index, volume in enumerate(server.volumes):
        if volume.source is not None and not (os.path.isdir(volume.source) or os.path.isfile(volume.source)):
            path = ("mcpServers", name, "volumes", index, "source")
            fault = Fault("there is no such file or directory; make it, or take the volume out")
            problems.append(policy.problem(path, fault, volume.source))
    return problems


def size_limits(plan: Plan) -> LayerStatus | None:
    """How a size of a volume is held on this machine, by trying; None where the policy asks for none."""
    if not sized_places(plan):
        return None
    return probe_sizes(volume_directory(plan.policy))


def volume_directory(policy: Policy) -> str:
    """Where volumes would lie: the state directory, or the temporary one as long as there is none."""
    state_dir = policy.runtime.state_dir
    return state_dir if state_dir and os.path.isdir(state_dir) else tempfile.gettempdir()


def refuse_unbounded(plan: Plan, status: LayerStatus | None) -> None:
    """Refuse to start where a size that the policy asks for would not hold; `status` is what `size_limits` found.

    Raises:
        StartRefused: naming each size's place, with the reason and the remedy.
    """
    if status is None or status.state == "enforced":
        return
    places = [
        f"  {plan.policy.place('mcpServers', name, *path)}: mcpServers.{name}.{path[0]}"
        for name, path in sized_places(plan)
    ]
    raise StartRefused(
        f"a volume's size cannot be enforced here: {status.reason}\nThe policy asks for it at\n"
        + "\n".join(places)
    )


def refuse_unenforceable(policy: Policy, features: Features) -> None:
    """Refuse to start with less isolation than the policy requires, by name or by an egress list.

    Raises:
        StartRefused: naming each layer, with the kernel's reason.
    """
    reaching = [name for name, server in policy.servers.items() if policy.profile(server.profile).egress]
    required = frozenset(policy.require)
    missing = unmet(features, required | (EGRESS_LAYERS if reaching else frozenset()))
    if missing:
        lines = "\n".join(f"  {each.layer}: {each.reason}" for each in missing)
        way = "take the layer out of `require`"
        if not {each.layer for each in missing} <= required:
            way = f"leave {', '.join(reaching)} without `network.egress`, which needs {', '.join(sorted(EGRESS_LAYERS))}"
        raise StartRefused(
            f"the policy requires isolation that cannot be enforced here:\n{lines}\n"
            f"Provide it (`mcphost doctor` says how, in this very place), or {way}."
        )


class _AnySecret(dict[str, Secret]):
    """Stands for secrets that are not read yet, so that everything else of a sandbox can be checked."""

    def __missing__(self, key: str) -> Secret:
        return Secret("x")

    def __contains__(self, key: object) -> bool:
        return True


_PLACEHOLDERS: Final = _AnySecret()
