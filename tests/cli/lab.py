# SPDX-License-Identifier: Apache-2.0
"""What the tests of the whole command share: a place of their own, small images, TAP, and
eyes that do not use the library: a walk of a pool by its directories and attributes.
"""

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
import io
import re

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MANIFEST = os.path.join(SOURCE, "tests", "tools", "manifest")
CEPH_IMAGES = os.path.join(SOURCE, "tests", "tools", "ceph-images")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# What a shell runs in the background ignores SIGINT, and so would all that is started here
signal.signal(signal.SIGINT, signal.default_int_handler)
KINDS = {"images": "image", "containers": "container", "virtual-machines": "virtual-machine",
         "custom": "custom"}


# ---- TAP ----

class Tap:
    """Counts as it goes; finish() prints the plan."""

    def __init__(self):
        self.n = 0
        self.failed = 0

    def ok(self, is_good, name, *explanation):
        self.n += 1
        if not is_good:
            self.failed += 1
            for text in explanation:
                for line in str(text).splitlines()[:60]:
                    print("# " + line[:400])
        print(f"{'ok' if is_good else 'not ok'} {self.n} - {name.replace('#', '')}", flush=True)
        return is_good

    def same(self, got, want, name, *explanation):
        return self.ok(got == want, name, f"got:  {got!r}", f"want: {want!r}", *explanation)

    def skip(self, name, why):
        self.n += 1
        print(f"ok {self.n} - {name} # SKIP {why}", flush=True)

    def finish(self):
        print(f"1..{self.n}")
        return 1 if self.failed else 0


def skip_all(why):
    print(f"1..0 # SKIP {why}")
    sys.exit(0)


def say(text):
    print("# " + text, flush=True)


# ---- what this machine has ----

def why_not(driver):
    """Why this driver cannot be tested here; None if it can."""
    if os.geteuid() != 0:
        return "needs root"
    if driver == "btrfs":
        if not os.path.exists("/dev/loop-control"):
            return "no loop devices"
        with open("/proc/filesystems", encoding="ascii") as known:
            if "btrfs" in known.read().split():
                return None
        if subprocess.run(["modprobe", "-q", "btrfs"], check=False).returncode != 0:
            return "no Btrfs in this kernel"
    if driver == "lvm" and not os.path.exists("/dev/mapper/control"):
        return "no device mapper in this kernel; tests/tools/with-uml starts one that has it"
    if driver == "ceph" and not os.path.exists("/etc/ceph/ceph.conf"):
        return "there is no cluster; tests/tools/with-ceph starts one"
    if driver == "zfs" and subprocess.run(["zpool", "list"], check=False, capture_output=True
                                          ).returncode != 0:
        return "no ZFS answers; tests/tools/with-zfs starts one"
    return None


def need(driver):
    reason = why_not(driver)
    if reason:
        skip_all(reason)


def is_sanitized(program):
    """Was it built with the address sanitizer?"""
    with open(program, "rb") as file:
        return b"__asan_init" in file.read()


# ---- processes ----

def command_line(pid):
    """Each word ends with a zero byte; "": it is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def process_state(pid):
    """R, S, T … as proc(5) has it; X: there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "X"


def has_stopped(pid, times=50):
    """Stopped for good, or gone: a tracer stops it for moments, too."""
    for _ in range(times):
        if process_state(pid) not in "TtX":
            return False
        time.sleep(0.01)
    return True


def wait_until(is_so, seconds=60, pause=0.01):
    """False if it never was."""
    until = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > until:
            return False
        time.sleep(pause)
    return True


# ---- running the command ----

def trace(call, log, *options):
    """What to put before a command for these calls of it to be written down. (The sanitizer of
    leaks does not work beside another tracer.)"""
    asan = os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
    return ["env", f"ASAN_OPTIONS={asan}", "strace", "-D", "-f", "-qq", "-s", "4096", "-o", log,
            "-e", f"trace={call}", *options, "--"]


def strace(call, what):
    """What to put before a command for a kind of call of it to fare so."""
    return trace(call, os.devnull, "-e", f"inject={call}:{what}")


class Result:
    def __init__(self, argv, status, out, err):
        self.argv, self.status, self.out, self.err = argv, status, out, err

    def errors(self):
        """Standard error without the notes."""
        return [l for l in self.err.splitlines() if not l.startswith("coppice: note:")]

    def __str__(self):
        return f"{' '.join(self.argv)}\nstatus {self.status}\nout: {self.out}\nerr: {self.err}"


class Lab:
    """A scratch directory with a state directory in it; all is taken away at the end."""

    def __init__(self, coppice, name="test"):
        self.coppice = os.path.abspath(coppice)
        beside = os.path.join(os.path.dirname(self.coppice), "..", "image")
        if os.path.exists(os.path.join(beside, "coppice-unpack")):  # it is not installed
            os.environ.setdefault("COPPICE_LIBEXECDIR", os.path.realpath(beside))
        self.dir = tempfile.mkdtemp(prefix=f"coppice-{name}-")
        os.chmod(self.dir, 0o755)
        self.state = os.path.join(self.dir, "state")
        self.states = {self.state}

    def __enter__(self):
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: sys.exit(1))
        return self

    def argv(self, *args, root=None):
        root = root or self.state
        self.states.add(root)
        return [self.coppice, "--root", root, *args]

    def run(self, *args, root=None, prefix=(), stdin=subprocess.DEVNULL, timeout=120, cwd=None):
        argv = [*prefix, *self.argv(*args, root=root)]
        done = subprocess.run(argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, errors="surrogateescape", timeout=timeout, check=False,
                              cwd=cwd)
        return Result(["coppice", *args], done.returncode, done.stdout, done.stderr)

    def must(self, *args, **options):
        done = self.run(*args, **options)
        if done.status != 0:
            raise RuntimeError(f"a step that the test stands on failed: {done}")
        return done.out.strip()

    def json(self, *args, **options):
        return json.loads(self.must(*args, "--format", "json", **options))

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def pool(self, name, driver, root=None):
        """Where a pool that Coppice made for itself is found; of ZFS, its dataset; of LVM, its
        volume group; of Ceph, the cluster's pool."""
        if driver in ("ceph", "lvm", "zfs"):
            return name if driver == "zfs" else f"{driver}:{name}"
        return os.path.join(root or self.state, "mnt" if driver == "btrfs" else "storage-pools",
                            name)

    def create(self, name, driver, *settings, root=None):
        if driver in ("btrfs", "lvm", "zfs") and not settings:
            settings = ("size=1GiB",) + (("volume.size=100MiB",) if driver == "lvm" else ())
        if driver == "ceph" and not settings:
            settings = ("ceph.osd.pg_num=8", "volume.size=100MiB")
        self.must("storage", "create", name, driver, *settings, root=root)
        return self.pool(name, driver, root)

    def loops(self):
        """Loop devices on files of ours, by what the kernel says."""
        found = []
        for device in os.listdir("/sys/block"):
            with contextlib.suppress(OSError):
                with open(f"/sys/block/{device}/loop/backing_file", encoding="utf-8",
                          errors="surrogateescape") as file:
                    if file.read().startswith(self.dir + "/"):
                        found.append("/dev/" + device)
        return found

    def mounts(self):
        """Mounts below our directory, the deepest first."""
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            points = [line.split()[4].encode().decode("unicode_escape") for line in file]
        return sorted((p for p in points if p.startswith(self.dir + "/")), key=len, reverse=True)

    def drafts(self):
        """Those of volumes that are being made."""
        return [point for point in self.mounts() if "/drafts/" in point]

    def is_unpacking(self, n=20):
        """Does one of them have more than so many files, or folders, in one folder?"""
        return any(len(names) > n for point in self.drafts()
                   for _, *both in os.walk(point) for names in both)

    def __exit__(self, *_):
        if not os.environ.get("COPPICE_TEST_KEEP"):
            self.clean()

    def clean(self):
        for root in self.states:
            with contextlib.suppress(OSError):
                for file in sorted(os.listdir(os.path.join(root, "pools"))):
                    self.run("--quiet", "storage", "delete", file.split(".")[0], "--force",
                             root=root)
        for point in self.mounts():
            subprocess.run(["umount", "-l", point], check=False)
        for device in self.loops():
            subprocess.run(["losetup", "-d", device], check=False)
        if not self.mounts():
            shutil.rmtree(self.dir, ignore_errors=True)
            # What is left is subvolumes, where /tmp itself is Btrfs, or immutable
            if os.path.exists(self.dir):
                for top, folders, _ in os.walk(self.dir, topdown=False):
                    for folder in folders:
                        subprocess.run(["btrfs", "subvolume", "delete",
                                        os.path.join(top, folder)], check=False,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                shutil.rmtree(self.dir, ignore_errors=True)


# ---- small images ----

def small_tar(path, n_files=300, salt="", lxd=False, mode=None):
    """A root file system of some files, with hard links, symlinks and attributes, as a tar."""
    chance = random.Random("coppice " + salt)
    top = "rootfs/" if lxd else "./"
    mode = mode or ("w:gz" if path.endswith("gz") else "w:xz" if path.endswith("xz") else "w:")
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as tar:
        def put(name, kind, data=b"", permissions=0o644, **more):
            entry = tarfile.TarInfo(top + name)
            entry.type, entry.size, entry.mode = kind, len(data), permissions
            entry.mtime = 1600000000 + chance.randrange(10 ** 6)
            for key, value in more.items():
                setattr(entry, key, value)
            tar.addfile(entry, io.BytesIO(data))

        if lxd:
            entry = tarfile.TarInfo("metadata.yaml")
            text = (b"architecture: x86_64\ncreation_date: 1600000000\n"
                    b"properties:\n  description: A small one\n  os: Small\n")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
        put("", tarfile.DIRTYPE, permissions=0o755)
        for folder in ("bin", "etc", "etc/deep", "usr", "var"):
            put(folder, tarfile.DIRTYPE, permissions=0o755)
        put("etc/salt", tarfile.REGTYPE, salt.encode())
        for i in range(n_files):
            folder = ("bin", "etc", "etc/deep", "usr", "var")[i % 5]
            data = chance.randbytes(chance.choice((0, 10, 100, 1000, 5000, 20000)))
            more = {"pax_headers": {"SCHILY.xattr.user.mark": str(i)}} if i % 7 == 0 else {}
            put(f"{folder}/f{i}", tarfile.REGTYPE, data, 0o4755 if i % 50 == 0 else 0o644,
                uid=i % 3 * 1000, gid=i % 4, **more)
            if i % 20 == 0:
                put(f"usr/l{i}", tarfile.LNKTYPE, linkname=f"{top}{folder}/f{i}")
            if i % 30 == 0:
                put(f"usr/s{i}", tarfile.SYMTYPE, linkname=f"../{folder}/f{i}")
    return path


# ---- looking without the library ----

def digest(top):
    """All that matters of a tree as one word; None if there is none."""
    if not os.path.isdir(top):
        return None
    total = hashlib.sha256()
    links = {}
    for here, folders, files in os.walk(os.fsencode(top)):
        folders.sort()
        for name in sorted([*files, *(f for f in folders
                                      if os.path.islink(os.path.join(here, f)))]) + [b"."]:
            path = os.path.join(here, name)
            st = os.lstat(path)
            words = [path[len(os.fsencode(top)):], st.st_mode, st.st_uid, st.st_gid]
            if stat.S_ISREG(st.st_mode):
                with open(path, "rb") as file:
                    words += [st.st_size, hashlib.sha256(file.read()).digest()]
                words.append(links.setdefault(st.st_ino, words[0]) if st.st_nlink > 1 else "")
            elif stat.S_ISLNK(st.st_mode):
                words.append(os.readlink(path))
            words.append(st.st_mtime_ns)
            for attribute in sorted(os.listxattr(path, follow_symlinks=False)):
                words += [attribute, os.getxattr(path, attribute, follow_symlinks=False)]
            total.update(repr(words).encode())
    return total.hexdigest()


def manifest(top, *options):
    done = subprocess.run([MANIFEST, "--top", *options, top], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, check=False)
    return done.stdout if done.returncode == 0 else f"manifest failed: {done.stderr}"


def record(directory):
    """The record of a volume, or None; raises ValueError if it is none."""
    try:
        return json.loads(os.getxattr(directory, "trusted.coppice"))
    except OSError:
        return None


def walk(pool):
    """Whatever the engine."""
    if pool.startswith("lvm:"):
        return LvmWalk(pool[4:])
    if pool.startswith("ceph:"):
        return CephWalk(pool[5:])
    return Walk(pool) if pool.startswith("/") else ZfsWalk(pool)


class Walk:
    """What is in a pool: {"container c1": path of its live, "container c1/s0": …}, problems."""

    def __init__(self, pool):
        self.volumes = {}
        self.records = {}
        self.problems = []
        for folder, kind in KINDS.items():
            for name in sorted(os.listdir(os.path.join(pool, folder))):
                self.look(os.path.join(pool, folder, name), kind, name)
        self.drafts = sorted(os.listdir(os.path.join(pool, "drafts")))
        # An account is the space that still belongs to a volume that is gone; Btrfs alone has
        # them, and alone gives an empty directory the size 0.
        deleted = os.path.join(pool, "deleted")
        self.deleted = sorted(name for name in os.listdir(deleted) if os.listdir(
            os.path.join(deleted, name)) or os.stat(os.path.join(deleted, name)).st_size)

    def look(self, path, kind, name):
        key = f"{kind} {name}"
        try:
            found = record(path)
        except ValueError:
            self.problems.append(f"{key}: its record is no JSON")
            found = None
        if not found or not UUID.fullmatch(found.get("uuid", "")) or found.get("kind") != kind:
            self.problems.append(f"{key}: no good record: {found}")
        self.records[key] = found
        self.volumes[key] = os.path.join(path, "live")
        if not os.path.isdir(os.path.join(path, "live", "rootfs")):
            self.problems.append(f"{key}: no live/rootfs")
        inside = sorted(os.listdir(path))
        if [entry for entry in inside if entry not in ("live", "snapshots")]:
            self.problems.append(f"{key}: what is this: {inside}")
        if "/" not in name and "snapshots" in inside:
            for snapshot in sorted(os.listdir(os.path.join(path, "snapshots"))):
                self.look(os.path.join(path, "snapshots", snapshot), kind, f"{name}/{snapshot}")

    def digest(self, key):
        return digest(os.path.join(self.volumes[key], "rootfs")) if key in self.volumes else None

    def digests(self, keys):
        return {key: self.digest(key) for key in keys}

    def state(self):
        """Everything, to compare before with after."""
        digests = self.digests(self.volumes)
        return {key: (self.records[key], digests[key]) for key in self.volumes}


def zfs(*args):
    done = subprocess.run(["zfs", *args], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"zfs {' '.join(args)}: status {done.returncode}: {done.stderr}")
    return done.stdout


def zfs_patiently(*args):
    """Again while zfs says that a dataset is busy, as it does for a moment after others' use."""
    for pause in [0.02] * 50 + [0]:
        try:
            return zfs(*args)
        except RuntimeError as error:
            if pause == 0 or "busy" not in str(error):
                raise
        time.sleep(pause)


class ZfsWalk(Walk):
    """The same of a pool on ZFS; volumes are names of datasets and snapshots."""

    def __init__(self, root):  # pylint: disable=super-init-not-called
        self.root = root
        self.volumes, self.records, self.problems = {}, {}, []
        self.guids = {}  # a snapshot of the same guid is the same snapshot
        found = {}
        for line in zfs("get", "-Hp", "-r", "-o", "name,property,value,source",
                        "type,origin,guid,userrefs,coppice:record", root).splitlines():
            name, key, value, source = line.split("\t")
            entry = found.setdefault(name[len(root) + 1:], {})
            if source in ("-", "local"):
                entry[key] = value
        self.origins = {entry.get("origin") for entry in found.values()}
        self.drafts = sorted(n for n in found if n.startswith("drafts/"))
        self.deleted = []
        self.held = {name for name, entry in found.items()
                     if entry.get("userrefs", "-") not in ("-", "0")}
        for name, entry in found.items():
            self.look_at(name, entry, found)

    def look_at(self, name, entry, found):
        dataset, _, snapshot = name.partition("@")
        parts = dataset.split("/")
        if snapshot == "guard" or parts[2:] == ["guard"]:
            if parts[0] not in KINDS:
                self.deleted.append(name)
            elif snapshot and name not in self.held:
                self.problems.append(f"{name} is not held")
            elif "/".join(parts[:2]) not in found:
                self.problems.append(f"{name} guards nothing")
            return
        if snapshot.startswith(("copy-", "deleted-", "draft-")) or \
                (parts[0] == "deleted" and len(parts) > 2):
            # These must be stood on, or be what something is in that is.
            if not any(o.startswith(f"{self.root}/{name}") for o in self.origins if o):
                self.deleted.append(name)
            return
        if parts[0] == "mounts" and len(parts) > 1:
            self.problems.append(f"a clone for reading is left: {name}")
        if parts[0] not in KINDS or len(parts) < 2 or snapshot == "readonly":
            return
        if len(parts) > 2 and not snapshot:
            # Or one that others stand on, which is looked at by itself.
            if not any(n.startswith(name + "@") for n in found):
                self.problems.append(f"{name} holds no snapshot")
            return
        key = f"{KINDS[parts[0]]} {parts[1]}"
        if snapshot:
            key += "/" + snapshot[len("snapshot-"):]
        guards = ["readonly"] if parts[0] == "images" else ["guard"]
        # Whoever mends what another is just making may add the one below to the one that it has.
        is_below = f"{dataset}@guard" not in self.held and f"{dataset}/guard@guard" in self.held
        if snapshot and (len(parts) > 2 or is_below):
            guards = [snapshot]
        elif is_below:
            guards = []
        if not all(f"{dataset}@{guard}" in self.held for guard in guards):
            self.problems.append(f"{key} is not guarded")
        if key in self.volumes:
            self.problems.append(f"{key} is there twice: {name} {self.volumes[key]}")
        try:
            record_ = json.loads(entry.get("coppice:record", "null"))
        except ValueError:
            record_ = None
        if not record_ or record_.get("kind") != KINDS[parts[0]]:
            self.problems.append(f"{key}: no good record: {entry}")
        self.records[key] = record_
        self.volumes[key] = f"{self.root}/{name}"
        self.guids[key] = entry["guid"]

    def digest(self, key):
        """Through a clone, also of what is live: nobody's mount is touched."""
        if key not in self.volumes:
            return None
        source, clone = self.volumes[key], f"{self.root}/mounts/walk"
        top = tempfile.mkdtemp(prefix="coppice-walk-")
        if "@" not in source:
            source += "@walk"
            zfs_patiently("snapshot", source)
        zfs("clone", "-o", f"mountpoint={top}", source, clone)
        try:
            return digest(os.path.join(top, "rootfs"))
        finally:
            zfs("unmount", clone)
            zfs_patiently("destroy", clone)
            if source.endswith("@walk"):
                zfs_patiently("destroy", source)
            os.rmdir(top)


def lvm(*args):
    done = subprocess.run(args, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(args)}: status {done.returncode}: {done.stderr}")
    return done.stdout


def lvm_thin_ls(group, thin="CoppiceThinPool"):
    """{logical volume: (bytes mapped, bytes that only it has)}, as thin_ls counts them."""
    pool = f"{group}-{thin}".replace("-", "--").replace("--", "-", 1) + "-tpool"
    lvm("dmsetup", "message", pool, "0", "reserve_metadata_snap")
    try:
        rows = lvm("thin_ls", "--no-headers", "-m", "-o", "DEV,MAPPED_BYTES,EXCLUSIVE_BYTES",
                   f"/dev/mapper/{pool[:-len('-tpool')]}_tmeta")
    finally:
        lvm("dmsetup", "message", pool, "0", "release_metadata_snap")
    counted = {row[0]: (int(row[1]), int(row[2]))
               for row in (line.split() for line in rows.splitlines()) if row}
    listed = json.loads(lvm("lvs", "--reportformat", "json", "-o", "lv_name,thin_id",
                            group))["report"][0]["lv"]
    if set(counted) - {row["thin_id"] for row in listed}:
        raise RuntimeError(f"devices that LVM knows nothing of: {counted}, {listed}")
    return {row["lv_name"]: counted[row["thin_id"]] for row in listed if row["thin_id"]}


def of_tag(text):
    """As docs/on-disk.md has it: what tags have no letters for."""
    text = text.replace("!", '"').replace("#", ",")
    return re.sub("&([0-9A-F]{2})", lambda match: chr(int(match[1], 16)), text)


def record_of_tags(tags):
    """The record that a logical volume's tags hold; None if they hold none."""
    parts = sorted(re.findall(r"coppice\.([0-9]{2})\.([^,]*)", tags))
    whole = []
    for _, part in parts:
        key, value = part.split("=", 1)
        if key == "+":
            whole[-1][1] += value
        else:
            whole.append([key, value])
    if not whole:
        return None
    if whole[0][0] == ":":
        return json.loads(of_tag(whole[0][1]))
    return {of_tag(key.rstrip(":")): json.loads(of_tag(value)) if key.endswith(":")
            else of_tag(value) for key, value in whole}


class LvmWalk(Walk):
    """The same of a pool on LVM; volumes are names of logical volumes."""

    def __init__(self, group):  # pylint: disable=super-init-not-called
        self.group = group
        self.volumes, self.records, self.problems = {}, {}, []
        found = json.loads(lvm("lvs", "--reportformat", "json", "-o",
                               "lv_name,lv_tags,pool_lv,lv_attr", group))["report"][0]["lv"]
        found = {row["lv_name"]: row for row in found if row["pool_lv"]}
        self.drafts = [name for name in found if name.startswith("draft_")]
        self.deleted = [name for name in found if name.startswith("deleted_")]
        uuids = {}
        for name, row in found.items():
            word, _, rest = name.partition("_")
            if word in KINDS and "coppice.snapshot=" not in row["lv_tags"]:
                self.add(f"{KINDS[word]} {self.decode(rest)}", name, row)
                uuids[self.tag(row, "uuid")] = f"{KINDS[word]} {self.decode(rest)}"
        for name, row in found.items():
            snapshot = self.tag(row, "snapshot")
            if snapshot and self.tag(row, "group") in uuids:
                self.add(f"{uuids[self.tag(row, 'group')]}/{snapshot}", name, row)
            elif snapshot and name not in self.drafts:
                self.problems.append(f"{name} is a snapshot of nothing")

    @staticmethod
    def decode(name):
        name = re.sub(r"\+([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), name)
        return name.replace("--", "-")

    @staticmethod
    def tag(row, key):
        match = re.search(f"(?:^|,)coppice\\.{key}=([^,]*)", row["lv_tags"])
        return match and match[1]

    def add(self, key, name, row):
        if key in self.volumes:
            self.problems.append(f"{key} is there twice: {name} {self.volumes[key]}")
        record_ = record_of_tags(row["lv_tags"])
        if not record_ or record_["uuid"] != self.tag(row, "uuid") or \
                record_["kind"] != key.split()[0]:
            self.problems.append(f"{key}: no good record: {row}")
        expected = re.sub("^(.*) ", lambda match: [w for w, k in KINDS.items()
                                                   if k == match[1]][0] + "_", key)
        if "/" in key and name != expected.replace("-", "--").replace("/", "-"):
            self.problems.append(f"{key} is called {name}")
        if ("/" in key or key.startswith("image")) != (row["lv_attr"][1] == "r"):
            self.problems.append(f"{key} is writable or not: {row['lv_attr']}")
        self.records[key] = record_
        self.volumes[key] = name

    def digest(self, key):
        """Through a clone, also of what is live: nobody's mount is touched."""
        if key not in self.volumes:
            return None
        top = tempfile.mkdtemp(prefix="coppice-walk-")
        lvm("lvcreate", "-q", "-y", "--type", "thin", "-kn", "-n", "walk",
            f"{self.group}/{self.volumes[key]}")
        try:
            device = f"/dev/mapper/{self.group.replace('-', '--')}-walk"
            kind = lvm("blkid", "-o", "value", "-s", "TYPE", device).strip()
            lvm("mount", "-o", "nouuid" if kind == "xfs" else "defaults", device, top)
            return digest(os.path.join(top, "rootfs"))
        finally:
            subprocess.run(["umount", top], check=False)
            lvm("lvremove", "-q", "-y", f"{self.group}/walk")
            os.rmdir(top)


# ---- Ceph ----

def ceph(*args):
    """What a command of Ceph printed; it works, or the test has found something."""
    done = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(args)} failed with {done.returncode}: {done.stderr}")
    return done.stdout


def ceph_images(pool):
    """All that RBD has in a pool, as tests/tools/ceph-images tells it."""
    return json.loads(ceph(CEPH_IMAGES, pool))


def sum_of(path):
    """Of all bytes of a file, but that it takes holes and zeros for the same, and its size."""
    total, nothing = hashlib.sha256(), bytes(1 << 16)
    with open(path, "rb") as file:
        while data := file.read(1 << 16):
            if data != nothing[:len(data)]:
                total.update(b"%d " % file.tell() + data)
        total.update(b"%d" % file.tell())
    return total.hexdigest()


class CephWalk(Walk):
    """The same of a pool on Ceph, by RBD's own library; volumes are names of snapshots, or of
    images."""

    WORDS = set(KINDS.values())
    KNOWN = {}  # digests of files, by the sum of all bytes

    def __init__(self, pool):  # pylint: disable=super-init-not-called
        self.pool = pool
        self.volumes, self.records, self.problems = {}, {}, []
        found = ceph_images(pool)
        pending = {key[6:] for key in found["keys"] if key.startswith("draft.")}
        self.drafts = sorted(pending)
        images = {image["name"]: self.look_at(image) for image in found["images"]}
        self.deleted = self.forgotten(found)
        uuids = {}
        for name, (meta, _) in images.items():
            word, _, rest = name.partition("_")
            if word == "draft":
                self.drafts.append(name)
            elif word in self.WORDS and meta.get("coppice.draft") not in pending and \
                    "coppice.deleted" not in meta:
                self.add(f"{word} {rest}", name, meta, meta.get("coppice.record"))
                uuids[meta.get("coppice.uuid")] = f"{word} {rest}"
        for name, (meta, snaps) in images.items():
            owner = uuids.get(meta.get("coppice.group"))
            for snap in snaps:
                if snap.startswith("snapshot_") and owner:
                    draft = meta.get(f"coppice.pending.{snap[9:]}", meta.get("coppice.draft"))
                    if draft not in pending:
                        self.add(f"{owner}/{snap[9:]}", f"{name}@{snap}", meta,
                                 meta.get(f"coppice.snapshot.{snap[9:]}"))
                elif snap.startswith("copy_"):
                    self.problems.append(f"{name} has {snap}")
            if name.startswith("kept_") and not owner and meta.get("coppice.group"):
                self.problems.append(f"{name} keeps snapshots of nothing")
            if name.startswith("view_"):
                self.problems.append(f"{name} is left")
            if name.startswith("image_") and "readonly" not in snaps:
                self.problems.append(f"{name} has no snapshot for clones")

    @staticmethod
    def forgotten(found):
        """What is in the trash, and no clone that is not stands on it, nor on what stands on it."""
        trashed = {one["id"]: one for one in found["trash"]}
        for image_id in {image.get("parent") for image in found["images"]}:
            while image_id in trashed:
                image_id = trashed.pop(image_id)["parent"]
        return [one["name"] for one in trashed.values()] + found["hidden"]

    def look_at(self, image):
        """Its metadata, if that is its own, and its snapshots."""
        if "error" in image:
            self.problems.append(f"{image['name']} is half made: {image['error']}")
            return {}, []
        meta = image["meta"]
        return meta if meta.get("coppice.id") == image["id"] else {}, image["snapshots"]

    def add(self, key, where, meta, text):
        if key in self.volumes:
            self.problems.append(f"{key} is there twice: {where} {self.volumes[key]}")
        try:
            found = json.loads(text)
        except (TypeError, ValueError):
            found = {}
        if found.get("kind") != key.split()[0] or \
                ("/" not in key and found.get("uuid") != meta.get("coppice.uuid")):
            self.problems.append(f"{key}: no good record: {text}")
        self.records[key] = found
        self.volumes[key] = where

    def digest(self, key):
        return self.digests([key])[key]

    def digests(self, keys):
        return dict.fromkeys(keys) | {key: self.files_of(path) for key, path in self.copies(keys)}

    def copies(self, keys):
        """(key, a file with its bytes), for each that is there, until the next is asked for. So
        nobody's mount is touched."""
        there = {key: self.volumes[key] for key in keys if key in self.volumes}
        with tempfile.TemporaryDirectory(prefix="coppice-walk-") as top:
            files = {key: os.path.join(top, str(i)) for i, key in enumerate(there)}
            if not all("@" in where for where in there.values()):
                os.sync()  # who has it mounted may not have written it out
            ceph(CEPH_IMAGES, self.pool, *[word for key, where in there.items()
                                           for word in (where, files[key])])
            for key, path in files.items():
                yield key, path
                os.unlink(path)

    @classmethod
    def files_of(cls, path, total=None):
        """Their digest, of a file that was copied; with the sum of all of its bytes if it is known."""
        total = total or sum_of(path)
        if total not in cls.KNOWN:
            cls.KNOWN[total] = cls.mounted_files_of(path)
        return cls.KNOWN[total]

    @staticmethod
    def mounted_files_of(path):
        with tempfile.TemporaryDirectory(prefix="coppice-walk-") as tree:
            ceph("mount", "-o", "loop", path, tree)
            try:
                return digest(os.path.join(tree, "rootfs"))
            finally:
                ceph("umount", tree)
