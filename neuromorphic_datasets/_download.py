"""Downloads: from alternative hosts, resumed, checked, and put in place completely or not at all."""

import hashlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._packages import needs
from ._progress import bar

_ATTEMPTS = 5
_BACKOFF_S = 0.5
_TIMEOUT_S = (10, 60)
# A dropped connection loses the piece that is not yet complete.
_PIECE = 1 << 16
# Status codes of temporary failures; after any other one without data the next host is tried.
_TEMPORARY = {408, 425, 429, 500, 502, 503, 504}


class DownloadError(OSError):
    """No host delivers a file; the message says how to install it manually.

    Example:
        >>> import tempfile
        >>> import neuromorphic_datasets as nd
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     try:
        ...         nd.download("dvslip", root=folder)
        ...     except DownloadError as error:
        ...         print(str(error).splitlines()[1])
          its host allows no automatic download
    """


class _HostError(Exception):
    """A host does not deliver the file."""


@dataclass(frozen=True)
class RemoteFile:
    """A file on the network.

    Attributes:
        name: its name on disk.
        urls: where it is available, best first.
        md5: checksum, 32 hexadecimal digits; None if the publisher changes the file from time to time.
        bytes: its size, or None if that is not known in advance.
        split: the part of the data set that it contains, or "all".
        by_hand: whether it has to be fetched with a browser, from the page that is its only URL.
        pattern: what it unpacks to, below the set's folder; empty for the recordings of its split.
    """

    name: str
    urls: tuple[str, ...]
    md5: str | None = None
    bytes: int | None = None
    split: str = "all"
    by_hand: bool = False
    pattern: str = ""


def fetch(file: RemoteFile, folder: Path) -> Path:
    """Return the path of a file in `folder`; fetch it if it is missing, check it if it was installed manually.

    If processes need the file at the same time, one fetches it and the others wait. An interrupted transfer resumes
    where it stopped, also in a later run.

    Raises:
        DownloadError: no host delivers the file, or disk space is too small.
    """
    from filelock import FileLock

    target = folder / file.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{file.name}.lock"):
            if target.is_file():
                if not is_right(target, file):
                    raise DownloadError(_by_hand(file, folder, [f"{target} exists, but has another size or checksum"]))
                return target
            if file.by_hand:
                raise DownloadError(_by_hand(file, folder, ["its host allows no automatic download"]))
            _fetch_from_any(file, folder)
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise type(error)(f"root: expected a folder that can be written, got {folder}: {error.strerror}") from None
    return target


def _fetch_from_any(file: RemoteFile, folder: Path) -> None:
    partial, failures = folder / f"{file.name}.part", []
    for url in file.urls:
        try:
            _fetch_from(url, file, partial)
            if not is_right(partial, file):
                # The part from before a resumption may be of an older version: start over once.
                partial.unlink()
                _fetch_from(url, file, partial)
            if not is_right(partial, file):
                size, md5 = partial.stat().st_size, md5_of(partial)
                partial.unlink()
                raise _HostError(f"delivers another file: {size} bytes with MD5 {md5}")
            os.replace(partial, folder / file.name)
            return
        except _HostError as error:
            failures.append(f"{url}: {error}")
    raise DownloadError(_by_hand(file, folder, failures))


def _by_hand(file: RemoteFile, folder: Path, failures: list[str]) -> str:
    """Return what went wrong, and how to install the file manually."""
    lines = [f"{file.name}: download failed.", *(f"  {failure}" for failure in failures), "To install it manually:"]
    lines += [f"  from    {url}" for url in file.urls]
    lines += [f"  to      {folder / file.name}"]
    lines += [f"  MD5     {file.md5}"] if file.md5 else []
    lines += [f"  size    {file.bytes} bytes"] if file.bytes else []
    return "\n".join(lines)


def is_right(path: Path, file: RemoteFile) -> bool:
    if file.bytes is not None and path.stat().st_size != file.bytes:
        return False
    return file.md5 is None or md5_of(path) == file.md5


def md5_of(path: Path) -> str:
    """Return a file's MD5 in hexadecimal digits."""
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _fetch_from(url: str, file: RemoteFile, partial: Path) -> None:
    """Complete `partial` from one host, in repeated attempts if need be."""
    with needs("download"):
        import requests

    attempt, size_before = 0, _size(partial)
    while attempt < _ATTEMPTS:
        try:
            if _transfer(url, file, partial):
                return
            failure = "the connection was lost"
        except requests.ConnectionError as error:
            failure = f"no connection: {_innermost(error)}"
        except requests.RequestException as error:
            failure = str(error)
        # A host that delivers something each time is worth further attempts.
        attempt, size_before = (1 if _size(partial) > size_before else attempt + 1), _size(partial)
        time.sleep(_BACKOFF_S * 2 ** (attempt - 1))
    raise _HostError(f"{failure} ({_ATTEMPTS} attempts)")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _innermost(error: BaseException) -> str:
    reason = error.args[0] if error.args else error
    return str(getattr(reason, "reason", reason)).split(": ", 1)[-1]


def _transfer(url: str, file: RemoteFile, partial: Path) -> bool:
    """Fetch the missing part of a file; return whether all of it arrived."""
    import requests

    have = _size(partial)
    headers = {"Range": f"bytes={have}-"} if have else {}
    # Without it a server may compress, and sizes and offsets would be those of the compressed stream.
    headers["Accept-Encoding"] = "identity"
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
        if response.status_code == 416:
            partial.unlink()
            return False
        if response.status_code in _TEMPORARY:
            raise requests.RequestException(f"the host answers {response.status_code}")
        if response.status_code not in (200, 206):
            raise _HostError(f"the host answers {response.status_code} {response.reason}, without data".rstrip())
        resumed = response.status_code == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if have and not resumed:
            have = 0
            if response.status_code == 206:
                partial.unlink()
                return False
        length = response.headers.get("Content-Length")
        missing = int(length) if length and length.isdigit() else None
        _check_space(partial, missing)
        return _write(response, file, partial, have, missing)


def _check_space(partial: Path, missing: int | None) -> None:
    free = shutil.disk_usage(partial.parent).free
    if missing is not None and missing > free:
        raise DownloadError(f"{partial.parent}: expected {missing} bytes of free disk space, got {free}")


def _write(response: Any, file: RemoteFile, partial: Path, have: int, missing: int | None) -> bool:
    """Append a response to `partial`; return whether all of it arrived."""
    import requests

    total, received = None if missing is None else have + missing, 0
    progress = bar(total=total, initial=have, desc=file.name, unit="B", unit_scale=True)
    with progress, open(partial, "ab" if have else "wb") as stream:
        try:
            for chunk in response.iter_content(_PIECE):
                if have + received == 0 and _is_page(response, chunk):
                    raise _HostError("the host answers with a web page instead of the file")
                stream.write(chunk)
                received += len(chunk)
                progress.update(len(chunk))
        except requests.RequestException:
            return False
        finally:
            stream.flush()
            os.fsync(stream.fileno())
    if have + received == 0:
        raise _HostError("the host answers with an empty file")
    return missing is None or received == missing


def _is_page(response: Any, start: bytes) -> bool:
    html = response.headers.get("Content-Type", "").startswith("text/html")
    return html or start.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html"))
