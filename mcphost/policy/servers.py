"""`mcpServers`: what is run. The entries of an ordinary mcp.json, and what this runtime adds to them."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from mcphost.policy.faults import Fault, Faults, first_repeated
from mcphost.policy.fields import (
    AbsolutePath,
    Count,
    FilledText,
    Items,
    Model,
    PlainName,
    Text,
    VariableName,
)
from mcphost.policy.profiles import DEFAULT_PROFILE
from mcphost.policy.secrets import secret_names
from mcphost.policy.units import Timeout
from mcphost.policy.volumes import DataSettings, Volume, disagreements

# More than anybody reviews, and well below what one start can carry.
MAX_VOLUMES = 32
# Each is a process with its memory; more would be a second fleet that does nothing.
MAX_WARM = 64
MAX_LEASES = 64  # each is a process with its memory, too
MAX_PRELOAD = 32  # with its own module fewer than the sandbox takes

_VARIABLE = re.compile(r"\$\{(?:secret|env|input|userHome|workspaceFolder)\b")


def _as_written(text: str) -> str:
    """Arguments are shown in process lists, so secrets do not belong there; nothing else is filled in."""
    if _VARIABLE.search(text):
        raise Fault("variables are not filled in here; pass the value in env")
    return text


def _template(text: str) -> str:
    secret_names(text)
    return text


Argument = Annotated[Text, AfterValidator(_as_written)]
Template = Annotated[
    str,
    *Text.__metadata__,
    AfterValidator(_template),
    WithJsonSchema({"type": ["string", "number", "boolean"]}),
]
ModuleName = Annotated[
    Text, Field(max_length=255, pattern=r"^[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*$")
]
ToolName = Annotated[FilledText, Field(max_length=128)]


class Backoff(Model):
    """How long to wait before a worker is started again: doubled each time, with jitter."""

    initial: Timeout = 0.5
    """The first wait."""

    max: Timeout = 30.0
    """The longest wait."""

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.max < self.initial:
            raise Fault("is shorter than initial", at=("max",))
        return self


class RestartSettings(Model):
    """What follows when a worker ends by itself."""

    policy: Literal["on-failure", "always", "never"] = "on-failure"
    """When to start it again."""

    max: Count = 5
    """So many restarts within `window`; one failure more, and the server counts as failed."""

    window: Timeout = 300.0
    """The span of time in which failures are counted."""

    backoff: Backoff = Backoff()
    """How long to wait in between."""


class Timeouts(Model):
    """How long a server may take."""

    start: Timeout = 20.0
    """From the start of the process until it can take calls."""

    call: Timeout = 30.0
    """For one call; then it is cancelled in the worker, too."""

    stop: Timeout = 5.0
    """To end by itself when its input is closed, and again when told to terminate."""

    tools: Mapping[ToolName, Timeout] = Field(default_factory=dict)
    """For calls of single tools, in place of `call`."""


class Expectation(Model):
    """What must be there once the server has started; otherwise the start has failed."""

    capabilities: Items[Literal["tools", "resources", "prompts", "completions", "logging"]] = ()
    """MCP capabilities that it must offer."""

    tools: Items[ToolName] = ()
    """Tools that it must list, by its own names."""


def _start_of(data: Mapping[str, object]) -> Literal["eager", "lazy"]:
    return "eager" if data.get("scope") == "shared" else "lazy"


class Server(Model):
    """One MCP server that speaks over standard input and output."""

    command: Annotated[FilledText, AfterValidator(_as_written)]
    """The program: a name that is searched for, or an absolute path."""

    args: Items[Argument] = ()
    """Its arguments, as written."""

    env: Mapping[VariableName, Template] = Field(default_factory=dict, repr=False)
    """Its environment, all of it. `${secret:name}` is filled in from the tenant's secrets, `$$` is a dollar."""

    cwd: AbsolutePath | None = None
    """The directory inside the sandbox in which it starts."""

    profile: PlainName = DEFAULT_PROFILE
    """The profile that confines it."""

    scope: Literal["shared", "tenant", "session", "call"] = "tenant"
    """Who shares its workers. `shared`: all tenants; it gets no secrets. `tenant`: all clients of a tenant. `session`:
    the requests of one session or, of clients without sessions, of one token. `call`: nobody, each call has its own."""

    start: Literal["eager", "lazy"] = Field(default_factory=_start_of)
    """`eager`: with the runtime. `lazy`: with the first call. Default: eager when shared, else lazy."""

    era: Literal["auto", "legacy", "modern"] = "auto"
    """The protocol spoken to it: `legacy` begins with initialize, `modern` is 2026-07-28, `auto` finds out."""

    restart: RestartSettings = RestartSettings()
    """What follows when a worker ends by itself."""

    timeouts: Timeouts = Timeouts()
    """How long it may take."""

    concurrency: Count = 16
    """Calls under way in one worker; more wait."""

    leases: Annotated[int, Field(ge=1, le=MAX_LEASES)] = 8
    """Processes beside the main one, for calls that need one to themselves; more wait."""

    expect: Expectation = Expectation()
    """What must be there once it has started."""

    volumes: Annotated[Items[Volume], Field(max_length=MAX_VOLUMES)] = ()
    """Paths of the host, and what the runtime keeps for it, beside what its profile grants."""

    data: DataSettings = DataSettings()
    """The data directory of each tenant's worker."""

    warm: Annotated[int, Field(ge=0, le=MAX_WARM)] = 0
    """Processes that are started ahead of need and not yet spoken to, for each worker."""

    spawn: Literal["exec", "zygote"] = "exec"
    """How a worker begins. `zygote`: forked from a process that has imported the server's Python modules already."""

    preload: Annotated[Items[ModuleName], Field(max_length=MAX_PRELOAD)] = ()
    """Modules that a zygote imports ahead, beside the server's own."""

    @property
    def secrets(self) -> frozenset[str]:
        """The names of all secrets that its environment refers to."""
        return frozenset(name for value in self.env.values() for name in secret_names(value))

    @model_validator(mode="after")
    def _listed_once(self) -> Self:
        for key, words in (("capabilities", self.expect.capabilities), ("tools", self.expect.tools)):
            index = first_repeated(words)
            if index is not None:
                raise Fault("is listed twice", at=("expect", key, index))
        return self

    @model_validator(mode="after")
    def _preload_has_effect(self) -> Self:
        if self.preload and self.spawn != "zygote":
            raise Fault("has no effect without spawn: zygote", at=("preload",))
        return self

    @model_validator(mode="after")
    def _session_keys_have_effect(self) -> Self:
        faults = []
        if self.scope == "session" and self.start == "eager":
            why = "workers of sessions start with their session; there is none when the runtime starts"
            faults.append(Fault(why, at=("start",)))
        if self.scope == "session" and "leases" in self.model_fields_set:
            why = "has no effect with `scope: session`, where all calls of a session go to one process"
            faults.append(Fault(why, at=("leases",)))
        if faults:
            raise Faults(faults)
        return self

    @model_validator(mode="after")
    def _volumes_apart(self) -> Self:
        faults = [Fault(fault.message, at=("volumes", *fault.at)) for fault in disagreements(self.volumes)]
        if faults:
            raise Faults(faults)
        return self
