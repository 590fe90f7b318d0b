"""What a command's own installation is, on small installations made for the purpose."""

import os
import sys
from pathlib import Path

import pytest

from mcphost.policy import Fault, Program, resolve_program
from mcphost.policy.installations import is_too_broad

# Enough of a program for a file that is looked at and never run.
ELF = b"\x7fELF"


def put(path: Path, content: str | bytes = ELF, *, mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return path


def link(path: Path, target: str | Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
    return path


def python_at(prefix: Path) -> Path:
    """A Python installation as the python.org installer, pyenv and uv make them."""
    (prefix / "lib" / "python3.11").mkdir(parents=True)
    put(prefix / "bin" / "python3.11")
    return link(prefix / "bin" / "python3", "python3.11")


def venv_at(root: Path, base: Path) -> Path:
    """A virtual environment made from the Python in `base`."""
    put(root / "pyvenv.cfg", f"include-system-site-packages = false\nhome = {base}/bin\n", mode=0o644)
    (root / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    return link(root / "bin" / "python", base / "bin" / "python3")


def node_at(prefix: Path) -> Path:
    (prefix / "lib" / "node_modules").mkdir(parents=True)
    return put(prefix / "bin" / "node")


def resolve(
    command: str | Path, *args: str | Path, path: Path | str = "", granted: tuple[str, ...] = ()
) -> Program:
    return resolve_program(str(command), [str(arg) for arg in args], search_path=str(path), granted=granted)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory whose own path holds no symbolic link."""
    return tmp_path.resolve()


def test_a_console_script_brings_its_environment_and_the_base_python(root: Path) -> None:
    python_at(root / "py")
    python = venv_at(root / "venv", root / "py")
    script = put(root / "venv/bin/mcp-server-time", f"#!{python}\nimport server\n")
    program = resolve(script, "--zone", "UTC")
    assert program.path == str(python)
    assert program.argv == (str(python), str(script), "--zone", "UTC")
    assert program.read == (str(root / "py"), str(root / "venv"))
    assert program.search == (str(root / "venv/bin"),)


def test_a_base_python_behind_a_link_is_readable_by_both_names(root: Path) -> None:
    python_at(root / "py/3.11.7")
    link(root / "py/3.11", "3.11.7")
    python = venv_at(root / "venv", root / "py/3.11")
    assert set(resolve(python).read) == {str(root / "py/3.11"), str(root / "py/3.11.7"), str(root / "venv")}


def test_an_environment_of_the_system_python_needs_nothing_else(root: Path) -> None:
    python = link(root / "venv/bin/python", "/usr/bin/env")
    for settings in ("home = /usr/bin\n", "home = relative\n", ""):
        put(root / "venv/pyvenv.cfg", settings, mode=0o644)
        assert resolve(python).read == (str(root / "venv"),)


def test_packages_installed_in_place_belong_to_their_environment(root: Path) -> None:
    python_at(root / "py")
    python = venv_at(root / "venv", root / "py")
    (root / "checkout/src").mkdir(parents=True)
    pth = f"{root}/checkout/src\nimport something\n/no/such/folder\n/\n"
    put(root / "venv/lib/python3.11/site-packages/editable.pth", pth, mode=0o644)
    link(root / "venv/lib/python3.11/site-packages/dangling.pth", "nowhere")
    assert resolve(python).read == (str(root / "checkout/src"), str(root / "py"), str(root / "venv"))


def test_the_script_that_pip_writes_for_a_long_path_is_understood(root: Path) -> None:
    python_at(root / "py")
    python = venv_at(root / "a venv", root / "py")
    script = put(root / "a venv/bin/tool", f"""#!/bin/sh\n'''exec' "{python}" "$0" "$@"\n' '''\n""")
    assert resolve(script).argv == (str(python), str(script))


def test_a_global_node_package_brings_the_prefix_of_node(root: Path) -> None:
    node = node_at(root / "node")
    put(root / "node/lib/node_modules/server/dist/index.js", "#!/usr/bin/env node\n")
    link(root / "node/bin/server", "../lib/node_modules/server/dist/index.js")
    program = resolve("server", path=root / "node/bin")
    assert program.argv == (str(node), str(root / "node/lib/node_modules/server/dist/index.js"))
    assert program.read == (str(root / "node"),)


def test_a_local_node_package_brings_its_siblings_and_the_interpreter(root: Path) -> None:
    node = node_at(root / "node")
    main = put(
        root / "app/node_modules/@scope/server/index.js", "#!/usr/bin/env -S node --enable-source-maps\n"
    )
    command = link(root / "app/node_modules/.bin/server", "../@scope/server/index.js")
    program = resolve(command, path=root / "node/bin")
    assert program.argv == (str(node), "--enable-source-maps", str(main))
    assert program.read == (str(root / "app/node_modules"), str(root / "node"))


def test_a_script_argument_brings_its_package(root: Path) -> None:
    node = node_at(root / "node")
    put(root / "server/package.json", "{}", mode=0o644)
    script = put(root / "server/dist/index.js", "", mode=0o644)
    program = resolve(
        node, "--max-old-space-size=64", "--require", root / "server/dist/index.js", script, "/etc/passwd"
    )
    assert program.argv[0] == str(node)
    assert program.read == (str(root / "node"), str(root / "server"))


def test_a_script_argument_inside_node_modules_brings_all_of_them(root: Path) -> None:
    node = node_at(root / "node")
    put(root / "app/node_modules/a/package.json", "{}", mode=0o644)
    script = put(root / "app/node_modules/a/node_modules/b/index.js", "", mode=0o644)
    assert resolve(node, script).read == (str(root / "app/node_modules"), str(root / "node"))


def test_a_script_argument_without_a_package_brings_its_own_folder(root: Path) -> None:
    script = put(root / "scripts/server.py", "", mode=0o644)
    assert str(root / "scripts") in resolve("python3", "-W", "error", "-u", script, path="/usr/bin").read


@pytest.mark.parametrize("args", [("-m", "server"), ("-c", "pass"), ("server.py",), ("-u",), ()])
def test_without_an_absolute_script_only_the_interpreter_is_brought(
    args: tuple[str, ...], root: Path
) -> None:
    python_at(root / "py")
    assert resolve(root / "py/bin/python3", *args).read == (str(root / "py"),)


def test_an_argument_of_another_program_is_no_script(root: Path) -> None:
    program = put(root / "tool/server")
    data = put(root / "data/file.txt", "", mode=0o644)
    assert resolve(program, data).read == (str(program),)


def test_a_program_with_libraries_beside_it_brings_its_prefix(root: Path) -> None:
    (root / "tool/lib").mkdir(parents=True)
    assert resolve(put(root / "tool/bin/server")).read == (str(root / "tool"),)


def test_a_single_program_brings_only_itself(root: Path) -> None:
    real = put(root / "store/server-1.2")
    link(root / "bin/server", real)
    program = resolve("server", path=root / "bin")
    assert (program.path, program.argv, program.read) == (str(real), (str(real),), (str(real),))
    assert program.search == (str(real.parent),)


def test_what_the_profile_grants_is_not_listed_again(root: Path) -> None:
    node = node_at(root / "node")
    script = put(root / "server/index.js", "", mode=0o644)
    assert resolve(node, script, granted=(str(root),)).read == ()
    assert resolve(node, script, granted=(str(root / "node"),)).read == (str(root / "server"),)


def test_programs_of_the_distribution_need_nothing_and_keep_their_name() -> None:
    program = resolve("env", path="/usr/bin")
    assert (program.path, program.read) == ("/usr/bin/env", ())


def test_commands_beside_the_running_python_come_first(root: Path) -> None:
    name = os.path.basename(sys.executable)
    put(root / "bin" / name)
    beside = os.path.dirname(os.path.abspath(sys.executable))
    assert (
        resolve(name, path=root / "bin")
        .search[-1]
        .startswith((beside, os.path.dirname(os.path.realpath(sys.executable))))
    )


def test_a_shell_script_may_be_run_by_a_script_but_not_without_end(root: Path) -> None:
    put(root / "one", "#!/bin/sh\n")
    put(root / "two", f"#!{root}/one\n")
    assert resolve(root / "two").argv == ("/bin/sh", str(root / "one"), str(root / "two"))
    put(root / "self", f"#!{root}/self\n")
    with pytest.raises(Fault, match="run by scripts"):
        resolve(root / "self")


@pytest.mark.parametrize(
    ("command", "args"),
    [
        ("npx", ("-y", "@scope/server")),
        ("/usr/local/bin/npx", ()),
        ("uvx", ("mcp-server-time",)),
        ("docker", ("run", "-i", "image")),
        ("npm", ("exec", "server")),
        ("uv", ("--directory", "/srv/x", "run", "server")),
        ("pipx", ("run", "server")),
        ("bun", ("x", "server")),
        ("pnpm", ("dlx", "server")),
    ],
)
def test_what_fetches_at_every_start_is_refused_with_the_remedy(command: str, args: tuple[str, ...]) -> None:
    with pytest.raises(Fault, match="fetches what it runs") as caught:
        resolve(command, *args)
    assert caught.value.allowed == "install the server once, and name the command that it installs"
    assert caught.value.at == ("command",)


def test_a_command_that_is_not_there_is_told_with_every_place(root: Path) -> None:
    with pytest.raises(Fault) as caught:
        resolve("no-such-server", path=f"{root}/a:{root}/b:relative:")
    beside = os.path.dirname(os.path.abspath(sys.executable))
    assert caught.value.message == f"no-such-server was not found in {beside}, {root}/a, {root}/b"
    with pytest.raises(Fault, match="/no/such/server was not found"):
        resolve("/no/such/server")


def test_other_commands_that_cannot_be_started_are_told(root: Path) -> None:
    plain = put(root / "plain", mode=0o644)
    shim = put(root / "shims/python", "#!/usr/bin/env bash\n")
    nameless = put(root / "nameless", "#!\n")
    unclear = put(root / "unclear", "#!/usr/bin/env -i A=b node\n")
    odd = put(root / "odd", "#!/usr/bin/env 'node\n")
    missing = put(root / "missing", "#!/usr/bin/env no-such-interpreter\n")
    for command, why in (
        (plain, "is not executable"),
        (shim, "shim"),
        (nameless, "names no interpreter"),
        (unclear, "cannot be told"),
        (odd, "cannot be told"),
        (missing, "no-such-interpreter was not found"),
        ("./server", "bare name or an absolute path"),
    ):
        with pytest.raises(Fault, match=why) as caught:
            resolve(command)
        assert caught.value.at == ("command",)


def test_a_script_that_is_not_there_is_told_at_its_argument(root: Path) -> None:
    with pytest.raises(Fault, match="the script was not found") as caught:
        resolve(node_at(root / "node"), "--trace-warnings", root / "index.js")
    assert caught.value.at == ("args", 1)


def test_a_script_in_a_home_is_not_a_reason_to_show_the_home(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = root / "person"
    monkeypatch.setenv("HOME", str(home))
    script = put(home / "server.py", "", mode=0o644)
    put(home / "package.json", "{}", mode=0o644)
    with pytest.raises(Fault, match=r"list what it needs under filesystem\.read") as caught:
        resolve("python3", script, path="/usr/bin")
    assert caught.value.at == ("args", 0)
    assert resolve(node_at(root / "node"), script, granted=(str(script),)).read == (str(root / "node"),)
    nested = put(home / "servers/one/server.py", "", mode=0o644)
    assert resolve(root / "node/bin/node", nested).read == (str(root / "node"), str(nested.parent))


def test_a_program_in_a_home_brings_no_more_than_itself(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = root / "person"
    monkeypatch.setenv("HOME", str(home))
    (home / ".local/lib").mkdir(parents=True)
    (home / "lib").mkdir()
    for program in (put(home / ".local/bin/server"), put(home / "bin/server"), put(home / "server")):
        assert resolve(program).read == (str(program),)


@pytest.mark.parametrize(
    "folder",
    [
        "/",
        "/opt",
        "/root",
        "/home",
        "/home/someone",
        "/home/someone/.config",
        "/etc",
        "/etc/x",
        "/var/lib",
        "/tmp",
        "/proc/1",
    ],
)
def test_folders_of_more_than_one_program_are_too_broad(folder: str) -> None:
    assert is_too_broad(folder)


@pytest.mark.parametrize(
    "folder", ["/opt/server", "/home/someone/server", "/srv/a", "/root/.nvm/versions/node", "/etcetera/x"]
)
def test_a_folder_of_its_own_is_not(folder: str) -> None:
    assert not is_too_broad(folder)


def test_a_loop_of_links_ends(root: Path) -> None:
    link(root / "a", root / "b")
    link(root / "b", root / "a")
    with pytest.raises(Fault, match="was not found"):
        resolve(root / "a")
