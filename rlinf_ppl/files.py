"""Files that are there whole or not at all."""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

__all__ = ["write_text", "written_whole"]


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a file beside `path` to write, which takes its place once it is written, and else never.

    What `path` links to is replaced, and not the link. A new file gets the rights that new files have, one that is
    replaced keeps its own. Two that write the same file at once do not meet: the later one stays.

    Args:
        path: the file; its folder is there.

    Raises:
        OSError: it cannot be written, or is no file but a device, say; `filename` is the file's.
    """
    rights = rights_of(path)
    target = Path(os.path.realpath(path))
    beside = target.with_name(f".{secrets.token_hex(8)}{target.suffix[:16]}")
    try:
        beside.touch(exist_ok=False)
        if rights is not None:
            beside.chmod(rights)
        yield beside
        os.replace(beside, target)
    except OSError as error:
        error.filename, error.filename2 = os.fspath(path), None
        raise
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def rights_of(path: str | os.PathLike[str]) -> int | None:
    """The rights of a file that is there; None where none is.

    Raises:
        OSError: something else than a file has its name, or its links lead nowhere.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is no file to be replaced, but a device or a pipe", os.fspath(path))
    return stat.S_IMODE(mode)


def write_text(path: Path, text: str) -> None:
    """Writes a text file, whole or not at all."""
    with written_whole(path) as place:
        place.write_text(text, encoding="utf-8")
