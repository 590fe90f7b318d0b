"""The policy file: what it may say, and how it is read.

`load` gives a frozen, checked `Policy` or an error that lists every problem with its place. Nothing here
starts, connects or writes anything; secrets and programs are looked up only by `resolve_secrets` and
`resolve_program`.
"""

from mcphost.policy.addresses import Address
from mcphost.policy.certificates import certificate_bundle
from mcphost.policy.credentials import Credential, ResolvedSecrets, resolve_secrets
from mcphost.policy.entries import Entry, find_entry
from mcphost.policy.faults import Fault
from mcphost.policy.loading import load, loads
from mcphost.policy.models import DEFAULT_REQUIRE, Policy
from mcphost.policy.permission_tests import PermissionTest
from mcphost.policy.places import Place
from mcphost.policy.profiles import Profile, ResolvedProfile
from mcphost.policy.programs import Program, resolve_program
from mcphost.policy.routes import Route
from mcphost.policy.runtime_settings import LogSettings, RuntimeLimits, RuntimeSettings
from mcphost.policy.schema import json_schema
from mcphost.policy.secrets import Secret, SecretRef, interpolate, secret_names
from mcphost.policy.servers import Backoff, Expectation, RestartSettings, Server, Timeouts
from mcphost.policy.syscall_lists import SyscallList
from mcphost.policy.tenants import Tenant, TenantLimits, Token, ToolLimits
from mcphost.policy.units import Rate

__all__ = [
    "DEFAULT_REQUIRE",
    "Address",
    "Backoff",
    "Credential",
    "Entry",
    "Expectation",
    "Fault",
    "LogSettings",
    "PermissionTest",
    "Place",
    "Policy",
    "Profile",
    "Program",
    "Rate",
    "ResolvedProfile",
    "ResolvedSecrets",
    "RestartSettings",
    "Route",
    "RuntimeLimits",
    "RuntimeSettings",
    "Secret",
    "SecretRef",
    "Server",
    "SyscallList",
    "Tenant",
    "TenantLimits",
    "Timeouts",
    "Token",
    "ToolLimits",
    "certificate_bundle",
    "find_entry",
    "interpolate",
    "json_schema",
    "load",
    "loads",
    "resolve_program",
    "resolve_secrets",
    "secret_names",
]
