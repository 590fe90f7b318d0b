"""Where the machine's groups are as one would wish, and where not: what becomes of a fork server there.

A check gets the group it is in, which holds it alone. Run by `vm.suite`.
"""

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from sandbox import LAYERS, SandboxUnsupported, Spawner, diagnose, syscalls
from sandbox.cgroups import group_files, tree, v2
from vm.checks import CGROUPS, expect, finish, inside, started, states, until

CLONE_NEWNS, CLONE_NEWCGROUP = 0x00020000, 0x02000000  # sched.h


@contextlib.contextmanager
def spawning() -> Iterator[Spawner]:
    with contextlib.closing(Spawner.start(name="vm")) as spawner:
        yield spawner


def check_the_runtime_moves_itself_to_a_leaf_and_back(own: Path) -> None:
    ours = group_files.GroupFiles(own)
    expect(ours.processes(), [os.getpid()])
    with spawning() as spawner:
        expect(ours.processes(), [])
        leaf = group_files.GroupFiles(own / "sandbox-leaf")
        expect(set(leaf.processes()), {os.getpid(), spawner.pid})
    expect(ours.processes(), [os.getpid()])
    expect(ours.words("cgroup.subtree_control"), [])


def check_a_group_shared_with_others_is_not_divided(own: Path) -> None:
    with subprocess.Popen(["sleep", "1000"]) as other:
        try:
            with spawning() as spawner:
                for layer in CGROUPS:
                    assert "Delegate=yes" in spawner.features.status(layer).reason, spawner.features.status(
                        layer
                    )
                refused = False
                try:
                    finish(spawner, "", require=frozenset({"cgroup.memory"}))
                except SandboxUnsupported:
                    refused = True
                assert refused, "a required layer was missing and the worker ran"
        finally:
            other.kill()


def check_a_second_spawner_works_beside_the_first(own: Path) -> None:
    with spawning() as first, spawning() as second:
        for spawner in (first, second):
            expect(finish(spawner, "", require=frozenset(CGROUPS)).ended.code, 0)
    expect(group_files.GroupFiles(own).processes(), [os.getpid()])


def check_the_doctor_finds_every_layer_and_names_the_version(own: Path) -> None:
    found = diagnose()
    expect([each.layer for each in found.findings if each.state != "enforced"], [])
    (delegation,) = [each for each in found.abilities if each.ability == "cgroup-delegation"]
    expect((delegation.state, delegation.reason.split(",")[0]), ("possible", "version 2"))


def check_a_worker_is_born_in_its_group(own: Path) -> None:
    """The clone itself is counted there: with no room for it in the group it is refused, outside it is not."""
    driver = tree.open_driver("born")
    try:
        group = driver.create("one")
        place = group_files.GroupFiles(next(own.glob("sandbox.*/one")))
        place.write("pids.max", 0)
        born_in, entries = group.entry()
        expect(entries, ())
        refused = False
        try:
            child(born_in)
        except BlockingIOError:
            refused = True
        assert refused, "a group without room for a process got one"
        os.waitpid(child(None), 0)
        place.write("pids.max", 1)
        os.waitpid(child(born_in), 0)
        os.close(born_in or 0)
        assert group.remove()
    finally:
        driver.close()


def child(born_in: int | None) -> int:
    """A process that ends at once."""
    cloned = syscalls.clone(0, born_in)
    if cloned is None:
        os._exit(0)
    os.close(cloned.pidfd)
    return cloned.pid


def check_a_kill_takes_what_is_being_born_meanwhile(own: Path) -> None:
    with grouped() as group:
        pid = in_group(group, multiply)
        os.waitpid(pid, 0)
        assert group.place.processes(), "nobody is being born"
        group.kill()
        until(lambda: not group.place.processes(), "the group is empty")


def multiply() -> None:
    while not os.fork():  # each lives only to make the next, so that a list of them is always an old one
        pass


def check_what_is_frozen_does_nothing_and_can_be_killed(own: Path) -> None:
    inner_in, stdin = os.pipe()
    stdout, inner_out = os.pipe()

    def give_back() -> None:
        while byte := os.read(inner_in, 1):
            os.write(inner_out, byte)

    with grouped() as group:
        pid = in_group(group, give_back)
        os.write(stdin, b"a")
        expect(os.read(stdout, 1), b"a")
        assert group.freeze(frozen=True)
        until(lambda: group.place.keyed("cgroup.events", "frozen") == 1, "it is frozen")
        os.write(stdin, b"b")
        expect(select.select([stdout], [], [], 0.3)[0], [])
        assert group.freeze(frozen=False)
        expect(os.read(stdout, 1), b"b")
        group.freeze(frozen=True)
        group.kill()
        expect(os.waitpid(pid, 0)[1], signal.SIGKILL)


@contextlib.contextmanager
def grouped() -> Iterator[v2.V2Group]:
    """A group of the driver without caps, as a worker gets it."""
    driver = tree.open_driver("check")
    try:
        group = driver.create("one")
        assert isinstance(group, v2.V2Group), driver.missing
        yield group
        until(group.remove, "the group is removed")
    finally:
        driver.close()


def in_group(group: v2.V2Group, does: Callable[[], None]) -> int:
    born_in, _ = group.entry()
    cloned = syscalls.clone(0, born_in)
    if cloned is None:
        try:
            does()
        finally:
            os._exit(0)
    os.close(cloned.pidfd)
    os.close(born_in or 0)
    return cloned.pid


def check_nothing_is_left_when_the_fork_server_is_killed(own: Path) -> None:
    spawner = Spawner.start(name="vm")
    with started(spawner, "import os, time; os.fork(); print(1, flush=True); time.sleep(1000)") as (_, out):
        os.read(out, 1)
        pids = [pid for place in inside(own) for pid in group_files.GroupFiles(place).processes()]
        assert len(pids) >= 3, pids
        os.kill(spawner.pid, signal.SIGKILL)
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "they are gone")
        assert inside(own), "its groups went by themselves"
        spawner.close()
        expect(list(own.glob("sandbox.*")), [])


def check_a_controller_that_is_not_handed_down_is_named(own: Path) -> None:
    (own.parent / "cgroup.subtree_control").write_text("-cpu")
    try:
        with spawning() as spawner:
            assert "cpu controller is not handed down" in spawner.features.status("cgroup.cpu").reason
            done = finish(spawner, "", require=frozenset({"cgroup.memory", "cgroup.pids"}))
            seen = states(done.layers)
            expect([seen[layer] for layer in sorted(CGROUPS)], ["absent", "enforced", "enforced"])
    finally:
        (own.parent / "cgroup.subtree_control").write_text("+cpu")


def check_a_threaded_group_is_told_apart(own: Path) -> None:
    threaded = own / "threaded"
    threaded.mkdir()
    (threaded / "cgroup.type").write_text("threaded")
    (threaded / "cgroup.procs").write_text("0")
    try:
        with spawning() as spawner:
            for layer in CGROUPS:
                assert "is threaded" in spawner.features.status(layer).reason, spawner.features.status(layer)
    finally:
        (own / "cgroup.procs").write_text("0")
        threaded.rmdir()


def check_read_only_groups_are_told_with_the_remedy(own: Path) -> None:
    syscalls.unshare(CLONE_NEWNS)
    shell("mount --make-rprivate / && mount -o remount,bind,ro /sys/fs/cgroup")
    with spawning() as spawner:
        reason = spawner.features.status("cgroup.memory").reason
        assert "read-only" in reason, reason
        assert "Delegate=yes" in reason, reason
    (finding,) = [each for each in diagnose().findings if each.layer == "cgroup.memory"]
    assert "read-only" in finding.fix, finding


def check_a_container_with_writable_groups_of_its_own_has_all_layers(own: Path) -> None:
    """Its cgroup namespace makes its own group look like the root of the tree, which it is not."""
    syscalls.unshare(CLONE_NEWNS | CLONE_NEWCGROUP)
    shell("mount --make-rprivate / && umount /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup")
    expect(Path("/proc/self/cgroup").read_text(), "0::/\n")
    with spawning() as spawner:
        expect(finish(spawner, "", require=frozenset(LAYERS)).ended.code, 0)
    expect(Path("/proc/self/cgroup").read_text(), "0::/\n")


def check_a_tree_of_version_1_beside_it_does_not_confuse(own: Path) -> None:
    syscalls.unshare(CLONE_NEWNS)
    shell("mount --make-rprivate / && mount -t tmpfs v1 /mnt && mkdir /mnt/freezer")
    shell("mount -t cgroup -o freezer v1 /mnt/freezer")
    try:
        with spawning() as spawner:
            expect(finish(spawner, "", require=frozenset(LAYERS)).ended.code, 0)
    finally:
        shell("umount /mnt/freezer")


def shell(script: str) -> None:
    subprocess.run(["sh", "-ec", script], check=True)


# The first three need privilege; the others are the same for everyone, and each start of a fork server takes seconds.
FOR_ROOT_ONLY = (
    check_read_only_groups_are_told_with_the_remedy,
    check_a_container_with_writable_groups_of_its_own_has_all_layers,
    check_a_tree_of_version_1_beside_it_does_not_confuse,
    check_a_second_spawner_works_beside_the_first,
    check_a_controller_that_is_not_handed_down_is_named,
    check_a_threaded_group_is_told_apart,
    check_a_group_shared_with_others_is_not_divided,
    check_the_doctor_finds_every_layer_and_names_the_version,
)
