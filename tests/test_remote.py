"""Files at a URL, and the line that is said where they cannot be had."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from dsel.remote import Remote, Unreachable, is_url


@pytest.fixture
def remote() -> Iterator[Remote]:
    yield Remote("memory://here/below", "cache")
    fsspec.filesystem("memory").store.clear()


def test_what_is_a_url() -> None:
    assert is_url("s3://bucket/folder") and is_url("memory://x")
    assert not is_url("runs") and not is_url("/a/b") and not is_url("~/.cache/dsel")


@pytest.mark.parametrize("protocol", ["memory", "file"])
def test_files_go_there_and_come_back(protocol: str, tmp_path: Path) -> None:
    remote = Remote(f"{protocol}://{tmp_path}/there", "cache")
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    remote.check(write=True)
    remote.put({"k/one": tmp_path / "a", "k/deep/two": tmp_path / "a"}, "uploading")
    remote.write("k/three", b"3")
    found = remote.files("k")
    assert {name: each.size for name, each in found.items()} == {
        "k/one": 3_000_000,
        "k/deep/two": 3_000_000,
        "k/three": 1,
    }
    assert all(each.modified > 1e9 for each in found.values())
    remote.get({"k/deep/two": tmp_path / "b" / "c"}, "downloading")
    assert (tmp_path / "b" / "c").read_bytes() == (tmp_path / "a").read_bytes()
    remote.remove("k/deep")
    assert set(remote.files("k")) == {"k/one", "k/three"}
    remote.remove("k")
    assert remote.files("k") == {}


def test_what_is_not_there_is_none(remote: Remote) -> None:
    assert remote.read("gone") is None
    assert remote.files("gone") == {}
    remote.remove("gone")
    remote.check(write=False)
    assert remote.files() == {}
    with pytest.raises(Unreachable, match="cache=memory://here/below: FileNotFoundError"):
        remote.get({"gone": Path("gone")}, "downloading")
    Path("gone").unlink(missing_ok=True)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    for url, package in (
        ("gs://bucket/a", r"'gcsfs': pip install 'dsel\[gs\]'"),
        ("s3://b", r"'s3fs': pip install 'dsel\[s3\]'"),
    ):
        with pytest.raises(Unreachable, match=rf"runs={url}: needs the package {package}"):
            Remote(url, "runs").check(write=True)
    with pytest.raises(Unreachable, match="runs=nothing://b: ValueError: Protocol not known"):
        Remote("nothing://b", "runs").check(write=True)


class NoCredentialsError(Exception):
    """As botocore has it."""


class EndpointConnectionError(Exception):
    """As botocore has it."""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (NoCredentialsError("Unable to locate credentials"), "there are no credentials: set AWS_ACCESS_KEY_ID and"),
        (FileNotFoundError("The specified bucket does not exist"), "there is no such bucket: make it first"),
        (
            PermissionError("Access Denied"),
            "it may not be used with these credentials (PermissionError: Access Denied)",
        ),
        (EndpointConnectionError('Could not connect to the endpoint URL: "http://x"'), "it cannot be reached: look at"),
        (OSError("strange\nindeed"), "OSError: strange indeed"),
    ],
)
def test_every_fault_is_one_line(remote: Remote, error: Exception, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any, **kwargs: Any) -> None:
        raise error

    for name in ("find", "cat_file", "get", "put", "rm"):
        monkeypatch.setattr(type(remote._fs), name, fails)
    for call in (
        lambda: remote.check(write=False),
        lambda: remote.get({"a": Path("a")}, ""),
        lambda: remote.put({"a": Path(__file__)}, ""),
    ):
        with pytest.raises(Unreachable) as caught:
            call()
        assert str(caught.value).startswith(f"cache=memory://here/below: {line}")
        assert "\n" not in str(caught.value)


def test_no_key_is_said(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-very-secret-key")

    def fails(*args: Any, **kwargs: Any) -> None:
        raise PermissionError("a-very-secret-key is not known")

    monkeypatch.setattr(type(remote._fs), "find", fails)
    with pytest.raises(Unreachable, match="PermissionError: <hidden> is not known"):
        remote.check(write=False)


def test_a_full_disk_here_is_not_a_fault_of_the_other_side(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(remote._fs), "get", fails)
    with pytest.raises(OSError, match="No space left"):
        remote.get({"a": Path("a")}, "downloading")
