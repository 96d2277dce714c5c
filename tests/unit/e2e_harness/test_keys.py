"""What names a cached result: a change of anything that goes into it, and nothing else, gives another name."""

from dataclasses import replace
from pathlib import Path

import pytest
from e2e.harness import cachekey, debian, toolchain


def test_parts_are_framed() -> None:
    assert cachekey.digest(["ab", "c"]) != cachekey.digest(["a", "bc"])
    assert cachekey.digest(["ab", b"c"]) == cachekey.digest([b"ab", "c"])


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "inner").mkdir(parents=True)
    (root / "b").write_text("b")
    (root / "inner" / "a").write_text("a")
    (root / "link").symlink_to("b")
    return root


def test_a_tree_counts_names_contents_modes_and_links(tree: Path) -> None:
    seen = [cachekey.digest_tree(tree)]
    (tree / "b").write_text("B")
    seen.append(cachekey.digest_tree(tree))
    (tree / "b").chmod(0o755)
    seen.append(cachekey.digest_tree(tree))
    (tree / "b").rename(tree / "c")
    seen.append(cachekey.digest_tree(tree))
    (tree / "link").unlink()
    (tree / "link").symlink_to("c")
    seen.append(cachekey.digest_tree(tree))
    assert len(set(seen)) == len(seen)


def test_a_tree_counts_neither_its_place_nor_times_nor_compiled_python(tree: Path, tmp_path: Path) -> None:
    before = cachekey.digest_tree(tree)
    (tree / "__pycache__").mkdir()
    (tree / "__pycache__" / "a.pyc").write_bytes(b"x")
    (tree / "b").touch()
    assert cachekey.digest_tree(tree.rename(tmp_path / "elsewhere")) == before


def test_a_program_is_named_by_its_pins_flags_and_compiler() -> None:
    tool = toolchain.PAUSE
    keys = [
        toolchain.key(tool, go_version="go1.26.8"),
        toolchain.key(tool, go_version="go1.27.0"),
        toolchain.key(replace(tool, tags="x"), go_version="go1.26.8"),
        toolchain.key(replace(tool, cgo=True), go_version="go1.26.8"),
        toolchain.key(replace(tool, module="kind"), go_version="go1.26.8"),
    ]
    assert len(set(keys)) == len(keys)


def test_a_root_file_system_is_named_by_its_packages() -> None:
    assert debian.NODE.key != replace(debian.NODE, packages=debian.NODE.packages[:-1]).key
    assert debian.NODE.key != replace(debian.NODE, variant="extract").key


@pytest.mark.parametrize("tool", toolchain.TOOLS.values(), ids=lambda tool: tool.module)
def test_every_program_is_pinned(tool: toolchain.Tool) -> None:
    go_mod = (tool.directory / "go.mod").read_text()
    assert (tool.directory / "go.sum").is_file()
    assert go_mod.startswith(f"module coppice.dev/e2e/toolchain/{tool.module}\n")
    for package in tool.programs.values():
        assert f"{package}\n" in go_mod or package.startswith("coppice.dev/")


def test_the_version_is_the_one_go_mod_requires() -> None:
    go_mod = "module m\n\nrequire (\n\texample.com/ab v1.0.0\n\texample.com/a v1.2.3 // indirect\n)\nreplace example.com/b => x v9.9.9\n"
    assert toolchain.required_version(go_mod, "example.com/a") == "v1.2.3"
    assert toolchain.required_version("require example.com/c v2.0.0\n", "example.com/c") == "v2.0.0"
    with pytest.raises(LookupError, match=r"example\.com/b"):
        toolchain.required_version(go_mod, "example.com/b")


def test_kubernetes_calls_itself_by_its_version() -> None:
    assert f"version.gitVersion={toolchain.KUBERNETES.version}" in toolchain.KUBERNETES.flags[-1]
    assert "version.gitMinor=35" in toolchain.KUBERNETES.flags[-1]


def test_of_two_runs_that_make_the_same_the_first_is_kept(tmp_path):
    for run in ("first", "second"):
        made = tmp_path / run
        made.mkdir()
        (made / "program").write_text(run)
        cachekey.keep(made, tmp_path / "cache" / "key")
    assert (tmp_path / "cache" / "key" / "program").read_text() == "first"


def test_what_cannot_be_kept_is_not_passed_over(tmp_path):
    with pytest.raises(FileNotFoundError):
        cachekey.keep(tmp_path / "nothing", tmp_path / "cache" / "key")
