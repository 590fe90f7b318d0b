"""The command line: arguments in, exit status out.

Exit status: 0 done, 1 it could not start, 2 wrong usage (click), 70 it broke, 78 the policy is wrong (sysexits.h,
EX_SOFTWARE and EX_CONFIG).
What a command does is imported when it runs, so that `--help` is instant.
"""

import sys
from typing import TYPE_CHECKING, Final, NoReturn

import click

import mcphost
from mcphost.errors import McpHostError, PolicyError
from sandbox import SandboxError

if TYPE_CHECKING:
    from mcphost.decisions.routing import Route
    from mcphost.plan import Plan, ServerPlan
    from mcphost.policy import Token

EX_CONFIG: Final = 78
# Not Python's own 1, so that a service manager can tell a bug, after which it starts again, from a refusal to start.
EX_SOFTWARE: Final = 70


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(mcphost.__version__, prog_name="mcphost")
def main() -> None:
    """Run third-party MCP servers in sandboxes, for many tenants."""


@main.command()
@click.argument("policy", type=click.Path(dir_okay=False))
def run(policy: str) -> None:
    """Serve what POLICY says until told to stop (SIGTERM, SIGINT)."""
    from mcphost.serving import serve  # noqa: PLC0415

    try:
        serve(policy)
    except PolicyError as error:
        _fail(str(error), EX_CONFIG)
    except (McpHostError, SandboxError, OSError) as error:
        _fail(str(error), 1)
    except Exception:  # noqa: BLE001 - the boundary of the process: shown as Python would, under a status of its own
        import traceback  # noqa: PLC0415

        _fail(traceback.format_exc(), EX_SOFTWARE)


@main.command()
@click.argument("policy", type=click.Path(dir_okay=False))
def check(policy: str) -> None:
    """Validate POLICY and print what would run, starting nothing."""
    import os  # noqa: PLC0415

    from mcphost.policy import load  # noqa: PLC0415
    from mcphost.preflight import make_plan, refuse_unbounded, refuse_unenforceable, size_limits  # noqa: PLC0415
    from sandbox import probe  # noqa: PLC0415

    try:
        plan = make_plan(load(policy), os.environ)
    except PolicyError as error:
        _fail(str(error), EX_CONFIG)
    try:
        held = size_limits(plan)
        click.echo(_described(plan, "" if held is None else f"{held.state}: {held.reason}"))
        refuse_unenforceable(plan.policy, probe())
        refuse_unbounded(plan, held)
    except (McpHostError, SandboxError) as error:
        _fail(str(error), 1)
    click.echo(f"\n{policy}: ok")


@main.command()
@click.argument("policy", type=click.Path(dir_okay=False), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, whose form docs/operations.md describes.")
def doctor(policy: str | None, *, as_json: bool) -> None:
    """Say which sandbox layers hold on this machine, why others do not, and what to do about it.

    With POLICY also what its servers ask for. Exit status 1 where what is required cannot be enforced.
    """
    import json  # noqa: PLC0415
    import shutil  # noqa: PLC0415

    from mcphost.doctor import examine  # noqa: PLC0415

    try:
        report = examine(policy)
    except PolicyError as error:
        _fail(str(error), EX_CONFIG)
    except (McpHostError, SandboxError) as error:
        _fail(str(error), 1)
    columns = shutil.get_terminal_size().columns
    click.echo(json.dumps(report.to_wire(), indent=1) if as_json else report.text(columns))
    sys.exit(0 if report.ok else 1)


@main.command()
@click.argument("policy", type=click.Path(dir_okay=False))
@click.argument("who", metavar="TENANT[/TOKEN]")
@click.argument("item", metavar="SERVER/NAME")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, whose form docs/operations.md describes.")
def explain(policy: str, who: str, item: str, *, as_json: bool) -> None:
    """Say whether a tenant, or one of its tokens, may use a tool, prompt or resource, and which pattern decides.

    NAME is the name or URI that the server itself gives it. Exit status 1 where it is denied.
    """
    import json  # noqa: PLC0415

    from mcphost.grants import explain as explained  # noqa: PLC0415
    from mcphost.policy import Fault, load  # noqa: PLC0415

    try:
        found = explained(load(policy), who, item)
    except PolicyError as error:
        _fail(str(error), EX_CONFIG)
    except Fault as fault:
        raise click.UsageError(fault.hinted()) from None
    click.echo(json.dumps(found.to_wire(), indent=1) if as_json else found.text())
    sys.exit(0 if found.allowed else 1)


@main.group()
def token() -> None:
    """Make tokens."""


@token.command()
def new() -> None:
    """Make a token. Standard output gets the token alone; the entry for the policy goes to standard error."""
    import secrets  # noqa: PLC0415

    from mcphost.decisions.identity import RANDOM_BYTES, compose_token, digest_of  # noqa: PLC0415

    text = compose_token(secrets.token_bytes(RANDOM_BYTES))
    click.echo("Give this to the client; it is shown once:", err=True)
    click.echo(text)
    click.echo("Put this under `tokens:` of its tenant in the policy:", err=True)
    click.echo(f'  - {{id: NAME, sha256: "{digest_of(text).hex()}"}}', err=True)


@main.group()
def audit() -> None:
    """Look into the audit."""


@audit.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(dir_okay=False))
@click.option("--expect", metavar="HASH", help="The hash that the last record must have.")
def verify(files: tuple[str, ...], expect: str | None) -> None:
    """Say whether the records of FILE..., oldest file first, are all there and as they were written.

    Exit status 1 at the first that is not.
    """
    from mcphost.decisions.auditchain import GENESIS, Broken  # noqa: PLC0415
    from mcphost.telemetry.auditfile import verify as verify_files  # noqa: PLC0415

    try:
        verified = verify_files(files, expect)
    except (Broken, OSError) as error:
        _fail(str(error), 1)
    begins, last = verified.begins, verified.link
    if begins.hash != GENESIS:
        click.echo(f"goes on from record {begins.seq}, hash {begins.hash}")
    if verified.torn:
        click.echo(f"cut off and said so: {verified.torn}")
    if last is not None:
        click.echo(f"{verified.records} records, the last is {last.seq}, hash {last.hash}")


def _described(plan: "Plan", held: str) -> str:
    """`held` says how a size is held on this machine."""
    lines = []
    runtime = plan.policy.runtime
    lines.append(f"listen   {runtime.listen} (auth: {runtime.auth})")
    lines.append(f"admin    {runtime.admin or 'none'}")
    lines.append(f"require  {', '.join(plan.policy.require) or 'nothing'}")
    for name, server in plan.servers.items():
        sandbox = server.sandbox
        limits = sandbox.limits
        lines.append(f"\nserver {name} (scope: {server.server.scope}, start: {server.server.start})")
        lines.append(f"  runs   {' '.join(sandbox.argv)}")
        lines.append(f"  env    {', '.join(key for key, _ in sandbox.env)}")
        lines.extend(f"  {'writes' if each.writable else 'reads '} {each.source}" for each in sandbox.mounts)
        lines.append(f"  egress {_egress(server)}")
        lines.append(f"  calls  of the list {sandbox.syscalls}")
        lines.extend(f"  tmpfs  {each.target} ({each.size_bytes} bytes)" for each in sandbox.tmpfs)
        lines.extend(_kept(server, held))
        lines.append(
            f"  limits memory {limits.memory_bytes} bytes, {limits.pids} processes, "
            f"{limits.cpu_millis} milli-cpu, {limits.files} files, messages of {server.message_bytes} bytes"
        )
        lines.append(f"  call   within {server.timeouts.call:g} s, {server.server.concurrency} at once")
    lines.extend(["", *(f"route    {path} ({_route(route)})" for path, route in plan.routes.items())])
    for name, tenant in plan.tenants.items():
        rate = tenant.limits.rate
        paced = f"{rate.per_second:g}/s, burst {rate.burst}" if rate else "no rate limit"
        lines.append(f"\ntenant {name} ({paced}, {tenant.limits.concurrency} calls at once)")
        lines.append(f"  uses   {', '.join(tenant.servers) or 'no server'}")
        lines.append(f"  allow  {', '.join(tenant.allow) or 'nothing'}")
        if tenant.deny:
            lines.append(f"  deny   {', '.join(tenant.deny)}")
        lines.extend(filter(None, map(_narrowed, plan.policy.tenants[name].tokens)))
    if plan.policy.tests:
        lines.append(f"\ntests    {len(plan.policy.tests)}, all hold")
    return "\n".join(lines)


def _route(route: "Route") -> str:
    named = f"server{route.separator}name" if route.separator else "names without a prefix"
    offers = "everything" if route.features is None else ", ".join(sorted(route.features))
    choice = "the healthiest server of a name" if route.interchangeable else "the first server of a name"
    parts = [
        "all servers" if route.servers is None else ", ".join(route.servers) or "no server",
        offers,
        named if route.separator else f"{named}, {choice}",
        "lists go without a server that is down"
        if route.skips_down
        else "lists fail with a server that is down",
    ]
    return "; ".join(parts)


def _narrowed(token: "Token") -> str:
    """The patterns of a token, if it has any of its own."""
    said = [] if token.allow is None else [f"allow {', '.join(token.allow) or 'nothing'}"]
    said += [f"deny {', '.join(token.deny)}"] if token.deny else []
    return f"  token  {token.id}: {'; '.join(said)}" if said else ""


def _egress(server: "ServerPlan") -> str:
    if server.egress is None:
        return "none"
    reached = ", ".join(str(rule) for rule in server.egress.rules)
    ranges = ", ".join(str(network) for network in server.egress.networks)
    return f"{reached}{f'; also at {ranges}' if ranges else ''}"


def _kept(server: "ServerPlan", held: str) -> list[str]:
    """What the runtime keeps for a server, with the way in which its size is held."""
    volumes = [(each.target, each.size) for each in server.server.volumes if each.name is not None]
    if server.server.data.size is not None:
        volumes.append(("/data", server.server.data.size))
    return [
        f"  keeps  {target} ({f'{size} bytes, {held}' if size is not None else 'no size of its own'})"
        for target, size in volumes
    ]


def _fail(message: str, status: int) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(status)
