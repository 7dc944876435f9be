"""Archives give what they hold, and nothing that leads out of them or grows beyond a limit."""

import pickle
import stat
import struct
import zipfile

import pytest

from wsrl.errors import SignalError, UserError
from wsrl.signals.shapes.archives import Archive, ArchiveLimits, outside, read_inside


def write(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_members_are_read_also_in_another_process(tmp_path):
    archive = Archive(write(tmp_path / "a.zip", {"x/y.obj": b"v 0 0 0", "ü.txt": b"1"}))
    assert archive.names == ["x/y.obj", "ü.txt"] and archive.read("x/y.obj") == b"v 0 0 0"
    assert pickle.loads(pickle.dumps(archive)).read("ü.txt") == b"1"


def test_listing_tells_contents_apart(tmp_path):
    first, again = (Archive(write(tmp_path / name, {"x": b"1"})) for name in ("a.zip", "b.zip"))
    other = Archive(write(tmp_path / "c.zip", {"x": b"2"}))
    assert first.listing_sha256() == again.listing_sha256() != other.listing_sha256()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../../etc/passwd", "leads upwards"),
        ("x/../../y", "leads upwards"),
        ("/etc/passwd", "is absolute"),
        ("C:/windows", "is absolute"),
        ("..\\y", "has a backslash"),
        ("http://somewhere/y", "is an address"),
        ("y\0.obj", "zero byte"),
    ],
)
def test_names_that_lead_out(tmp_path, name, message):
    archive = Archive(write(tmp_path / "a.zip", {"../../etc/passwd": b"root", "x": b"1"}))
    with pytest.raises(SignalError, match=message):
        archive.read(name)
    assert message in outside(name) or outside(name)


def test_missing_member(tmp_path):
    with pytest.raises(SignalError, match=r"a\.zip: y\.obj: there is no such member"):
        Archive(write(tmp_path / "a.zip", {"x": b"1"})).read("y.obj")


def test_zip_bomb(tmp_path):
    archive = Archive(write(tmp_path / "a.zip", {"bomb.obj": bytes(30 << 20), "small": bytes(1000)}))
    with pytest.raises(SignalError, match=r"bomb\.obj: it unpacks to [0-9,]+ times its size, like a zip bomb"):
        archive.read("bomb.obj")
    assert archive.read("small") == bytes(1000)


def test_declared_size_beyond_the_limit(tmp_path):
    path = write(tmp_path / "a.zip", {"large": bytes(5000)}, zipfile.ZIP_STORED)
    with pytest.raises(SignalError, match=r"large: 5,000 bytes\. Allowed: at most 4,000 bytes"):
        Archive(path, ArchiveLimits(max_member_bytes=4000)).read("large")


def test_member_that_lies_about_its_size(tmp_path):
    path = write(tmp_path / "a.zip", {"liar": bytes(range(256)) * 8000})
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        at = data.index(signature)
        data[at + offset : at + offset + 4] = struct.pack("<I", 1000)
    path.write_bytes(data)
    with pytest.raises(SignalError, match=r"liar: (it is larger than the 1,000 bytes it declares|cannot be unpacked)"):
        Archive(path).read("liar")


def test_link_and_encrypted_member(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("link.obj")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("locked", b"abc")
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        at = data.rindex(signature)
        data[at + offset] |= 1  # the bit that says encrypted
    path.write_bytes(data)
    with pytest.raises(SignalError, match="it is a link"):
        Archive(path).read("link.obj")
    with pytest.raises(SignalError, match=r"locked: cannot be unpacked .*encrypted"):
        Archive(path).read("locked")


def test_damaged_data_and_no_archive(tmp_path):
    path = write(tmp_path / "a.zip", {"x": bytes(range(256)) * 20}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[200] ^= 255
    path.write_bytes(data)
    with pytest.raises(SignalError, match=r"x: cannot be unpacked \(Bad CRC-32"):
        Archive(path).read("x")
    (tmp_path / "b.zip").write_bytes(b"no zip")
    with pytest.raises(UserError, match=r"b\.zip is no zip archive that can be read"):
        Archive(tmp_path / "b.zip")


def test_too_many_members(tmp_path):
    path = write(tmp_path / "a.zip", {str(number): b"" for number in range(20)})
    with pytest.raises(UserError, match=r"has 20 members\. Allowed: at most 10"):
        Archive(path, ArchiveLimits(max_members=10))


def test_references_stay_inside(tmp_path):
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "shared.bin").write_bytes(b"fine")
    (tmp_path / "secret.bin").write_bytes(b"secret")
    (root / "a/out.bin").symlink_to(tmp_path / "secret.bin")
    (root / "a/in.bin").symlink_to(root / "shared.bin")
    assert read_inside(root, root / "a", "../shared.bin", 100) == b"fine" == read_inside(root, root / "a", "in.bin", 9)
    for name in ("out.bin", "../../secret.bin", str(tmp_path / "secret.bin"), "http://x/y.bin", "..\\shared.bin"):
        with pytest.raises(SignalError, match=r"it refers to .*(outside|absolute|address|backslash)"):
            read_inside(root, root / "a", name, 100)
    with pytest.raises(SignalError, match=r"it refers to none\.bin, which is missing"):
        read_inside(root, root / "a", "none.bin", 100)
    with pytest.raises(SignalError, match=r"has 4 bytes\. Allowed: at most 3 bytes"):
        read_inside(root, root, "shared.bin", 3)
