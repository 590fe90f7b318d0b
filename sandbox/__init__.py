"""Confinement of untrusted processes with what the Linux kernel offers, and nothing but the standard library.

`probe()` says what this machine and user can apply, `diagnose()` also why not more and what to do about it; `Spawner`
starts confined workers and reports what is in force for each, as read back from the kernel; `run()` is the small
blocking way for one program. Nothing here imports an event loop: watch `Spawner.fileno()` and call `receive()`.
"""

from sandbox.doctor.diagnosis import Ability, Diagnosis, Finding
from sandbox.doctor.report import diagnose, shown
from sandbox.egress.connect_request import ConnectReader, ConnectRefused, ConnectRequest, answer
from sandbox.egress.rules import (
    EGRESS_HOST,
    EGRESS_LAYERS,
    EGRESS_PORT,
    MAX_EGRESS_NETWORKS,
    MAX_EGRESS_RULES,
    Address,
    Egress,
    EgressRule,
    Network,
    address_of,
    parse_network,
    parse_rule,
)
from sandbox.egress.tls_hello import UNRECOGNIZED_NAME, ClientHello, HelloReader, HelloRefused, name_refusal
from sandbox.egress.tls_retry import RetryWatch
from sandbox.errors import (
    FilterInvalid,
    SandboxError,
    SandboxSetupFailed,
    SandboxUnsupported,
    SpawnerBusy,
    SpawnerGone,
    SpecInvalid,
)
from sandbox.features import Features, probe, probe_sizes, unmet
from sandbox.layers import LAYERS, LayerStatus
from sandbox.messages import Denied, Event, Exited, KillReason, Spawned, SpawnFailed
from sandbox.oneshot import Finished, run
from sandbox.seccomp.filters import MAX_FILTER_BYTES, encode_filter
from sandbox.seccomp.filters import SHIPPED as FILTERS
from sandbox.spawner import Spawner
from sandbox.spec import DATA_TARGET, MIN_VOLUME_BYTES, Limits, Mount, SandboxSpec, Tmpfs, Volume, Zygote

__all__ = [
    "DATA_TARGET",
    "EGRESS_HOST",
    "EGRESS_LAYERS",
    "EGRESS_PORT",
    "FILTERS",
    "LAYERS",
    "MAX_EGRESS_NETWORKS",
    "MAX_EGRESS_RULES",
    "MAX_FILTER_BYTES",
    "MIN_VOLUME_BYTES",
    "UNRECOGNIZED_NAME",
    "Ability",
    "Address",
    "ClientHello",
    "ConnectReader",
    "ConnectRefused",
    "ConnectRequest",
    "Denied",
    "Diagnosis",
    "Egress",
    "EgressRule",
    "Event",
    "Exited",
    "Features",
    "FilterInvalid",
    "Finding",
    "Finished",
    "HelloReader",
    "HelloRefused",
    "KillReason",
    "LayerStatus",
    "Limits",
    "Mount",
    "Network",
    "RetryWatch",
    "SandboxError",
    "SandboxSetupFailed",
    "SandboxSpec",
    "SandboxUnsupported",
    "SpawnFailed",
    "Spawned",
    "Spawner",
    "SpawnerBusy",
    "SpawnerGone",
    "SpecInvalid",
    "Tmpfs",
    "Volume",
    "Zygote",
    "address_of",
    "answer",
    "diagnose",
    "encode_filter",
    "name_refusal",
    "parse_network",
    "parse_rule",
    "probe",
    "probe_sizes",
    "run",
    "shown",
    "unmet",
]
