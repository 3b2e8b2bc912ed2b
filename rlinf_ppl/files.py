"""Files that are there whole or not at all."""

import contextlib
import os
import secrets
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
        OSError: it cannot be written; `filename` is the file's.
    """
    target = Path(path).resolve()
    beside = target.with_name(f".{secrets.token_hex(4)}.{target.name}")
    try:
        beside.touch(exist_ok=False)
        if target.exists():
            beside.chmod(target.stat().st_mode)
        yield beside
        os.replace(beside, target)
    except OSError as error:
        error.filename, error.filename2 = os.fspath(path), None
        raise
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file, whole or not at all."""
    with written_whole(path) as place:
        place.write_text(text, encoding="utf-8")
