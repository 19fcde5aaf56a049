"""Files from the network: several hosts, resumed, checked, and in place whole or not at all."""

import hashlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

_ATTEMPTS = 5
_BACKOFF_S = 0.5
_TIMEOUT_S = (10, 60)
# A cut connection loses the piece that was not yet complete.
_PIECE = 1 << 16
# What hosts answer for a moment; everything else that is no data sends us to the next host.
_PASSING = {408, 425, 429, 500, 502, 503, 504}


class DownloadError(OSError):
    """A file could not be had from any of its hosts; the message says how to place it by hand.

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
    """One host does not deliver."""


@dataclass(frozen=True)
class RemoteFile:
    """A file on the network.

    Attributes:
        name: its name on disk.
        urls: where it is to be had, best first.
        md5: checksum, 32 hexadecimal digits; None if the publisher changes the file from time to time.
        bytes: its size, or None if not known before.
        split: the part of the data set that is in it, or "all".
        by_hand: whether it has to be fetched with a browser, from the page that is the only URL.
    """

    name: str
    urls: tuple[str, ...]
    md5: str | None = None
    bytes: int | None = None
    split: str = "all"
    by_hand: bool = False


def fetch(file: RemoteFile, folder: Path) -> Path:
    """Return the path of a file in `folder`, fetched if it is not there; a file placed by hand is checked.

    Several processes may ask at the same time: one fetches, the others wait. A transfer that was cut goes on where
    it ended, also in a later run.

    Raises:
        DownloadError: no host delivers the file, or the disk is too small.
    """
    from filelock import FileLock

    target = folder / file.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{file.name}.lock"):
            if target.is_file():
                if not is_right(target, file):
                    raise DownloadError(
                        _by_hand(file, folder, [f"{target} is there, but has another size or checksum"])
                    )
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
                # The part before a resumption may be an older version: once more from the start.
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
    """Say what went wrong, and how to do without."""
    lines = [f"{file.name} could not be had:", *(f"  {failure}" for failure in failures), "To place it by hand:"]
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
    """Complete `partial` from one host, in several attempts if need be."""
    import requests

    attempt, had = 0, _size(partial)
    while attempt < _ATTEMPTS:
        try:
            if _transfer(url, file, partial):
                return
            failure = "the connection was cut"
        except requests.ConnectionError as error:
            failure = f"no connection: {_innermost(error)}"
        except requests.RequestException as error:
            failure = str(error)
        # A host that delivers a little each time is worth going on with.
        attempt, had = (1 if _size(partial) > had else attempt + 1), _size(partial)
        time.sleep(_BACKOFF_S * 2 ** (attempt - 1))
    raise _HostError(f"{failure} ({_ATTEMPTS} attempts)")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _innermost(error: BaseException) -> str:
    reason = error.args[0] if error.args else error
    return str(getattr(reason, "reason", reason)).split(": ", 1)[-1]


def _transfer(url: str, file: RemoteFile, partial: Path) -> bool:
    """Fetch what is missing of `partial`; return whether that was everything."""
    import requests

    have = _size(partial)
    headers = {"Range": f"bytes={have}-"} if have else {}
    # Without identity a server may compress, and sizes and offsets would be those of the compressed stream.
    headers["Accept-Encoding"] = "identity"
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
        if response.status_code == 416:
            partial.unlink()
            return False
        if response.status_code in _PASSING:
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


def _write(response, file: RemoteFile, partial: Path, have: int, missing: int | None) -> bool:
    """Append a response to `partial`; return whether all of it came."""
    import requests

    total, came = None if missing is None else have + missing, 0
    progress = tqdm(total=total, initial=have, desc=file.name, unit="B", unit_scale=True)
    with progress, open(partial, "ab" if have else "wb") as stream:
        try:
            for chunk in response.iter_content(_PIECE):
                if have + came == 0 and _is_page(response, chunk):
                    raise _HostError("the host answers with a web page instead of the file")
                stream.write(chunk)
                came += len(chunk)
                progress.update(len(chunk))
        except requests.RequestException:
            return False
        finally:
            stream.flush()
            os.fsync(stream.fileno())
    if have + came == 0:
        raise _HostError("the host answers with an empty file")
    return missing is None or came == missing


def _is_page(response, start: bytes) -> bool:
    html = response.headers.get("Content-Type", "").startswith("text/html")
    return html or start.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html"))
