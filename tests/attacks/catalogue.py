"""All attacks."""

from attacks import files, kernel, network, processes, resources
from attacks.attack import Attack

MODULES = ("attacks.files", "attacks.processes", "attacks.network", "attacks.kernel", "attacks.resources")

ATTACKS: tuple[Attack, ...] = tuple(
    attack for module in (files, processes, network, kernel, resources) for attack in module.rows.attacks
)
