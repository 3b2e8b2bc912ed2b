"""Files are written whole or not at all, beside each other, on full disks and to terminals that lack characters."""

import errno
import os
import resource
import stat
import subprocess
import sys

import pytest
import xarray as xr

from rlinf_ppl.files import write_text, written_whole
from rlinf_ppl.report import arviz

OLD, NEW = "what was there", "what comes"


def files(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("old", [None, OLD])
def test_a_file_is_whole_or_as_it_was(tmp_path, old):
    path = tmp_path / "a.txt"
    if old is not None:
        path.write_text(old)
    with pytest.raises(KeyboardInterrupt), written_whole(path) as place:
        place.write_text(NEW[:3])
        raise KeyboardInterrupt
    assert files(tmp_path) == ([] if old is None else ["a.txt"])
    assert old is None or path.read_text() == old
    write_text(path, NEW)
    assert path.read_text() == NEW and files(tmp_path) == ["a.txt"]


def test_a_kill_leaves_the_old_file(tmp_path):
    (tmp_path / "a.txt").write_text(OLD)
    killed = (
        "import os, signal, sys\nfrom rlinf_ppl.files import written_whole\n"
        "with written_whole(sys.argv[1]) as place:\n"
        "    place.write_text('wha')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run = subprocess.run([sys.executable, "-c", killed, tmp_path / "a.txt"])
    assert run.returncode == -9
    assert (tmp_path / "a.txt").read_text() == OLD


def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "folder").mkdir()
    for name, number in (("pipe", errno.EINVAL), ("loop", errno.ELOOP), ("folder", errno.EISDIR)):
        with pytest.raises(OSError) as caught:
            write_text(tmp_path / name, NEW)
        assert (caught.value.errno, caught.value.filename) == (number, str(tmp_path / name))
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode) and (tmp_path / "loop").is_symlink()
    assert files(tmp_path) == ["folder", "loop", "pipe"]


def test_a_name_may_be_as_long_as_names_are(tmp_path):
    write_text(tmp_path / ("x" * 251 + ".txt"), NEW)
    with pytest.raises(OSError) as caught:
        write_text(tmp_path / ("x" * 256), NEW)
    assert caught.value.errno == errno.ENAMETOOLONG and len(files(tmp_path)) == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize("command", ["list", "--version"])
def test_a_full_standard_output_is_said_in_one_line(command):
    with open("/dev/full", "w") as full:
        run = subprocess.run([sys.executable, "-m", "rlinf_ppl.cli", command], stdout=full, stderr=subprocess.PIPE)
    assert run.returncode == 1
    assert run.stderr.decode().splitlines() == ["rlinf: cannot write to standard output: No space left on device"]


def test_a_link_stays_one_and_rights_stay_what_they_were(tmp_path):
    (tmp_path / "real.txt").write_text(OLD)
    (tmp_path / "real.txt").chmod(0o640)
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    write_text(tmp_path / "link.txt", NEW)
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "real.txt").read_text() == NEW
    assert stat.S_IMODE((tmp_path / "real.txt").stat().st_mode) == 0o640
    write_text(tmp_path / "new.txt", NEW)
    (tmp_path / "usual.txt").touch()
    assert (tmp_path / "new.txt").stat().st_mode == (tmp_path / "usual.txt").stat().st_mode


@pytest.mark.parametrize("kind", ["text", "netcdf"])
def test_a_disk_that_is_full_is_named_by_the_file(tmp_path, kind):
    """A limit on the size of files stands in for the disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "a.nc"
    path.write_text(OLD)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError) as caught:
            if kind == "text":
                write_text(path, "x" * 5000)
            else:
                arviz.save({"posterior": xr.Dataset({"x": ("n", list(range(5000)))})}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == os.fspath(path)
    assert kind == "netcdf" or caught.value.errno == errno.EFBIG
    assert path.read_text() == OLD and files(tmp_path) == ["a.nc"]


def rlinf(*arguments, **settings):
    command = [sys.executable, "-m", "rlinf_ppl.cli", *map(str, arguments)]
    return subprocess.Popen(command, env=os.environ | settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_terminal_that_lacks_characters():
    run = rlinf("show", "lottery", PYTHONIOENCODING="ascii")
    told, complaint = run.communicate()
    assert (run.returncode, complaint) == (0, b"")
    assert b"log sum_a p exp Q" in told and told.isascii()


@pytest.mark.slow
def test_two_recoveries_in_one_folder(tmp_path):
    runs = [rlinf("recover", "lottery", "--out", tmp_path, PYTHONIOENCODING="latin-1") for _ in range(2)]
    said = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    assert all(b"0.6937" in told for told, _ in said)
    assert files(tmp_path) == ["lottery", "table.json", "table.md"]
    assert files(tmp_path / "lottery") == ["fit.png", "graph.png", "policy.png", "posterior.nc"]
    assert {"posterior"} <= set(arviz.load(tmp_path / "lottery" / "posterior.nc"))
