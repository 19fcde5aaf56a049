"""Unpacking of archives into a folder: completely or not at all, and nowhere else."""

import gzip
import json
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from ._progress import bar

_CHUNK = 1 << 20


class UnsafeArchiveError(ValueError):
    """A member of an archive would be written outside its folder, or is not a regular file."""


def manifest_path(archive: Path) -> Path:
    """Return the path of the list of files unpacked from an archive."""
    return archive.with_name(f".{archive.name}.json")


def unpack(archive: Path, md5: str | None) -> None:
    """Unpack a .zip, .tar.gz or .gz beside itself, including archives within it, and delete it.

    A list of the files with their sizes and checksums remains; it is written last, so its presence means that every
    file is in place. Leftovers of a killed process are removed by the next one.

    Raises:
        UnsafeArchiveError: a member is unsafe; nothing is unpacked.
        ValueError: the archive is damaged.
    """
    from filelock import FileLock

    folder = archive.parent
    with FileLock(folder / f".{archive.name}.lock"):
        if manifest_path(archive).exists() and not archive.exists():
            return
        staged = _staged(archive)
        shutil.rmtree(staged, ignore_errors=True)
        try:
            staged.mkdir()
            _unpack_into(archive, staged)
            files = {str(file.relative_to(staged).as_posix()): _summary(file) for file in sorted(_files(staged))}
            # File by file: the parts of a set share folders.
            for name in files:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(staged / name, folder / name)
            partial = manifest_path(archive).with_suffix(".part")
            partial.write_text(json.dumps({"archive": archive.name, "md5": md5, "files": files}))
            os.replace(partial, manifest_path(archive))
            archive.unlink()
        except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile) as error:
            raise ValueError(f"{archive}: damaged: {error}") from None
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def _staged(archive: Path) -> Path:
    return archive.with_name(f".{archive.name}.unpacking")


def is_cut_short(archive: Path) -> bool:
    """Return whether unpacking was interrupted, or is still under way."""
    return _staged(archive).exists()


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _summary(file: Path) -> list[int]:
    """Return [size, CRC-32]."""
    crc = 0
    with open(file, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return [file.stat().st_size, crc]


def damaged_files(manifest: Path) -> list[str]:
    """Return the names of the files in a manifest that are missing or changed."""
    files = json.loads(manifest.read_text())["files"]
    progress = bar(files.items(), desc=f"checking {manifest.name[1:-5]}", unit="file", delay=1)
    return [name for name, summary in progress if _state(manifest.parent / name) != summary]


def _state(file: Path) -> list[int] | None:
    return _summary(file) if file.is_file() else None


def _unpack_into(archive: Path, folder: Path) -> None:
    name = archive.name
    if name.endswith(".zip"):
        _unpack_zip(archive, folder)
    elif name.endswith((".tar.gz", ".tgz", ".tar")):
        _unpack_tar(archive, folder)
    else:
        with gzip.open(archive, "rb") as source, open(folder / archive.stem, "wb") as target:
            shutil.copyfileobj(source, target, _CHUNK)
    for inner in [path for path in _files(folder) if path.suffix == ".zip" and path != archive]:
        _unpack_into(inner, inner.parent)
        inner.unlink()


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as source:
        members = source.infolist()
        for member in members:
            _check_name(archive, member.filename)
            if stat.S_ISLNK(member.external_attr >> 16):
                raise UnsafeArchiveError(f"{archive}: {member.filename} is a link")
        for member in bar(members, desc=f"unpacking {archive.name}", unit="file", delay=1):
            if not member.is_dir() and not member.filename.startswith("__MACOSX/"):
                with source.open(member) as stream:
                    _write(stream, folder / member.filename)


def _unpack_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as source:
        for member in bar(source, desc=f"unpacking {archive.name}", unit="file", delay=1):
            _check_name(archive, member.name)
            if not (member.isfile() or member.isdir()):
                raise UnsafeArchiveError(f"{archive}: {member.name} is a link or a device")
            if (stream := source.extractfile(member)) is not None:  # it is None for folders
                _write(stream, folder / member.name)


def _check_name(archive: Path, name: str) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0:1] or not path.parts:
        raise UnsafeArchiveError(f"{archive}: {name!r} leads outside the folder")


def _write(stream: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "wb") as file:
        shutil.copyfileobj(stream, file, _CHUNK)
