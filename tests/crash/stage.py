# SPDX-License-Identifier: Apache-2.0
"""What killing and fault injection share: two pools with an image, every command that changes
storage, the state that each begins with, and what must be true of it afterwards.
"""

import collections
import hashlib
import os
import shutil
import subprocess

import lab

# A command that changes storage. prepare() makes the state that it begins with; judge(main,
# other), given walks of both pools, says what is wrong after it was done, undone or cut short.
# Done and undone are told by is_done(main, other). Of share the kills are as many. With
# may_touch_trees, images may be unpacked or not, after it failed, of which there are the bytes.
# is_unmounted: the command finds the pool "main" not mounted, and may leave it mounted.
Operation = collections.namedtuple("Operation", "name prepare argv judge is_done share "
                                   "may_touch_trees is_unmounted", defaults=(1, False, False))


INJECT = os.environ.get("COPPICE_INJECT") or os.path.join(
    os.environ.get("COPPICE_BUILD", "build-dev"), "tests", "tools", "inject")


def prefer_memory():
    """Let what is temporary lie in memory, if it can hold all this: who is killed or told of a
    failure has as little to do with how long a disk takes as we have time to wait for it."""
    probe = f"/dev/shm/coppice-probe.{os.getpid()}"
    try:
        with open(probe, "wb") as file:
            os.setxattr(file.fileno(), "user.probe", b"1")
            os.setxattr(file.fileno(), "trusted.probe", b"1")
        space = os.statvfs("/dev/shm")
        if space.f_bavail * space.f_frsize >= 4 << 30:
            os.environ["TMPDIR"] = "/dev/shm"
    except OSError:
        pass
    finally:
        if os.path.exists(probe):
            os.unlink(probe)


def target_of(link):
    try:
        return os.readlink(link)
    except OSError:
        return ""  # closed meanwhile


def who_holds(drafts):
    """The processes that have a file of this name open, and all that hold locks."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
                stat = file.read().strip()
            targets = [target_of(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue  # gone meanwhile
        found += [f"{stat}: {target}" for target in targets
                  if any(name in target for name in drafts)]
    with open("/proc/locks", encoding="ascii") as file:
        return f"open in {found}; locks: {file.read()}"


class Stage:
    """In a lab, pools "main" on a driver and "other" on dir, with one image in both."""

    def __init__(self, here, driver, chance, n_files=300, batch=None):
        self.lab, self.driver, self.chance = here, driver, chance
        # dir copies each, and syncs it
        batch = batch or {"btrfs": 14, "zfs": 8}.get(driver, 4)
        self.batch_names = [f"k{i}" for i in range(1, batch + 1)]
        self.main = here.create("main", driver)
        self.other = here.create("other", "dir")
        self.image = lab.small_tar(here.path("small.tar.gz"), n_files)
        self.n_files = n_files
        self.is_hopeless = False  # nothing can be removed any more, while a command runs
        here.must("image", "import", self.image, "--alias", "small", "-s", "main")
        self.want = lab.walk(self.main)
        self.content = self.want.digest(next(iter(self.want.volumes)))
        here.must("init", "small", "warm", "-s", "other")  # unpacks it there
        here.must("delete", "warm")

    def inject(self, argv, number=0, error=0):
        """Run a command; its system call of this number fails, or kills it. 0: none.
        (result, what was called: the one, or all)"""
        report = self.lab.path("report")
        done = self.lab.run(*argv, prefix=(INJECT, str(number), str(error), report))
        with open(report, encoding="utf-8", errors="replace") as file:
            return done, [line.rstrip("\n").split("\t") for line in file]

    # ---- what must be true after anything ----

    def left_in_state(self):
        bad = [f"STATE/images/{name} is left" for name in
               os.listdir(os.path.join(self.lab.state, "images")) if name.startswith("import-")]
        return bad + [f"STATE/pools/{name} is left" for name in
                      os.listdir(os.path.join(self.lab.state, "pools"))
                      if not name.endswith((".json", ".new"))]

    def look(self):
        """(walk of main, walk of other, complaints) after the next command."""
        bad = []
        # The next command that changes something, in both pools, sweeps
        after = self.lab.run("list", "--format", "json")
        for pool in ("main", "other"):
            done = self.lab.run("df", pool)
            if after.status != 0 or done.status != 0:
                bad.append(f"the next command fails: {after} {done}")
        found = self.lab.run("check")
        if found.status != 0:
            bad.append(f"check: {found}")
        walks = [lab.walk(self.main), lab.walk(self.other)]
        for walk in walks:
            bad += walk.problems
            if walk.drafts:
                bad.append(f"drafts are left: {walk.drafts}; {who_holds(walk.drafts)}")
                bad += [f"said meanwhile: {done.err}" for done in (after, found) if done.err]
            if walk.deleted:
                bad.append(f"deleted volumes are left: {walk.deleted}")
        bad += self.left_in_state()
        uuids = [r["uuid"] for walk in walks for r in walk.records.values() if r]
        if len(set(uuids)) != len(uuids):
            bad.append("a uuid is there twice")
        listed = sorted((row["pool"], row["name"]) for row in self.lab.json("list"))
        there = sorted((pool, key.split()[1]) for pool, walk in zip(("main", "other"), walks)
                       for key in walk.volumes if key.startswith("container") and "/" not in key)
        if listed != there:
            bad.append(f"listed {listed}, in the pools {there}")
        return *walks, bad

    # ---- the states that operations begin with ----

    def remove_instances(self):
        names = [row["name"] for row in self.lab.json("list")]
        if names:
            self.lab.must("delete", *names)

    def ensure_image(self):
        there = lab.walk(self.main).volumes
        if any(key.startswith("image") for key in there) and self.lab.json("image", "list"):
            return
        self.lab.run("image", "delete", "small")
        self.lab.must("image", "import", self.image, "--alias", "small", "-s", "main")

    def source(self):
        """s: two snapshots, and three different states."""
        self.remove_instances()
        self.ensure_image()
        self.lab.must("init", "small", "s", "-s", "main")
        self.lab.must("snapshot", "s", "one")
        top = self.lab.must("path", "s")
        self.states = {"container s/one": self.content}
        with open(os.path.join(top, "etc", "changed"), "w", encoding="ascii") as file:
            file.write("one " * 3000)
        os.unlink(os.path.join(top, "bin", "f0"))
        self.lab.must("snapshot", "s", "two")
        self.states["container s/two"] = lab.digest(top)
        with open(os.path.join(top, "etc", "changed"), "a", encoding="ascii") as file:
            file.write("two")
        self.states["container s"] = lab.digest(top)

    def batch(self):
        self.remove_instances()
        self.ensure_image()
        self.lab.must("init", "small", *self.batch_names, "-s", "main")

    # ---- judges ----

    def whole(self, walk, key, want, why=""):
        got = walk.digest(key)
        return [] if got == want else [f"{key} is not whole {why}"]

    @staticmethod
    def all_whole(walk, states):
        got = walk.digests(states)
        return [f"{key} is not whole" for key, want in states.items() if got[key] != want]

    def each_whole(self, walk):
        return self.all_whole(walk, dict.fromkeys(walk.volumes, self.content))

    def is_source(self, walk, name, what="container s"):
        """All of s is there under this name, snapshots and all."""
        return self.all_whole(walk, {key.replace(what, f"container {name}"): want
                                     for key, want in self.states.items()})

    def only(self, walk, names):
        there = {key.split()[1].split("/")[0] for key in walk.volumes if key[0] == "c"}
        return [] if there <= set(names) else [f"what are {sorted(there - set(names))}?"]

    def absent_or_copy(self, walk, name):
        if f"container {name}" in walk.volumes:
            return self.is_source(walk, name)
        return []

    def image_judge(self, main, _):
        """Not listed, or listed, exportable and usable; the volume whole wherever it is."""
        bad = self.each_whole(main)
        rows = self.lab.json("image", "list")
        files = os.listdir(os.path.join(self.lab.state, "images"))
        if not rows:
            if files or any(key.startswith("image") for key in main.volumes):
                bad.append(f"no image is listed, but there are {files} {list(main.volumes)}")
            return bad
        if rows[0]["aliases"] != ["small"]:
            bad.append(f"its alias was lost: {rows}")
        out = self.lab.path("again")
        self.lab.must("image", "export", "small", out, "--force")
        with open(out, "rb") as got, open(self.image, "rb") as want:
            if got.read() != want.read():
                bad.append("the export is not what was imported")
        self.lab.must("init", "small", "probe", "-s", "main")
        bad += self.whole(lab.walk(self.main), "container probe", self.content)
        self.lab.must("delete", "probe")
        return bad

    def move_judge(self, main, other):
        there = [walk for walk in (main, other) if "container s" in walk.volumes]
        if len(there) != 1:
            return [f"it is in {len(there)} pools"]
        if there[0].records["container s"].get("moved_from"):
            return ["its move is not finished"]
        return self.is_source(there[0], "s")

    # ---- images ----

    def has_image(self, alias):
        return any(alias in row["aliases"] for row in self.lab.json("image", "list"))

    def import_image(self):
        def prepare():
            self.remove_instances()
            self.lab.run("image", "delete", "small")

        yield Operation("image import", prepare,
                        ["image", "import", self.image, "--alias", "small", "-s", "main"],
                        self.image_judge, lambda *_: self.has_image("small"))

    def import_others(self):
        """A split image, and a directory that is packed meanwhile: all of it or nothing."""
        tree = self.lab.path("tree")
        os.makedirs(os.path.join(tree, "etc"))
        for i in range(self.n_files * 2 // 3):
            with open(os.path.join(tree, "etc", str(i)), "wb") as file:
                file.write(self.chance.randbytes(5000))
        metadata = self.lab.path("meta.tar")
        with open(self.lab.path("metadata.yaml"), "w", encoding="ascii") as file:
            file.write("architecture: x86_64\ncreation_date: 1\n")
        subprocess.run(["tar", "-C", self.lab.dir, "-cf", metadata, "metadata.yaml"], check=True)

        def prepare():
            self.remove_instances()
            for name in ("small", "more"):
                self.lab.run("image", "delete", name)

        def judge(main, _):
            rows = self.lab.json("image", "list")
            files = os.listdir(os.path.join(self.lab.state, "images"))
            if not rows:
                return [f"no image is listed, but there are {files} {list(main.volumes)}"] \
                    if files or any(key.startswith("image") for key in main.volumes) else []
            out = self.lab.path("out")
            self.lab.must("image", "export", "more", out, "--force")
            parts = [path for path in (out, out + ".root") if os.path.exists(path)]
            digest = hashlib.sha256()
            for path in parts:
                with open(path, "rb") as file:
                    digest.update(file.read())
                os.unlink(path)
            self.lab.must("init", "more", "probe", "-s", "main")
            self.lab.must("delete", "probe")
            return [] if digest.hexdigest() == rows[0]["fingerprint"] else \
                [f"the export of {len(parts)} files is not what was imported"]

        for what, words in (("image import of two files", (metadata, self.image)),
                            ("image import of a directory", (tree,))):
            yield Operation(what, prepare, ["image", "import", *words, "--alias", "more", "-s",
                                            "main"], judge, lambda *_: self.has_image("more"),
                            0.5)
        prepare()

    def image_export(self):
        out = self.lab.path("exported")

        def prepare():
            self.ensure_image()
            for name in os.listdir(self.lab.dir):
                if name.startswith("exported"):
                    os.unlink(self.lab.path(name))

        def is_whole():
            with open(out, "rb") as got, open(self.image, "rb") as want:
                return got.read() == want.read()

        def judge(*_):
            drafts = [name for name in os.listdir(self.lab.dir) if name.startswith("exported.")]
            bad = [f"{name} is left" for name in drafts if not self.is_hopeless]
            return bad + (["what was exported is not what was imported"]
                          if os.path.exists(out) and not is_whole() else [])

        yield Operation("image export", prepare, ["image", "export", "small", out], judge,
                        lambda *_: os.path.exists(out), 0)

    def image_delete(self):
        yield Operation("image delete", lambda: (self.remove_instances(), self.ensure_image()),
                        ["image", "delete", "small"], self.image_judge,
                        lambda *_: not self.has_image("small"), may_touch_trees=True)

    # ---- instances ----

    def init(self):
        yield Operation("init of a batch", lambda: (self.remove_instances(), self.ensure_image()),
                        ["init", "small", *self.batch_names, "-s", "main"],
                        lambda main, _: self.each_whole(main) + self.only(main, self.batch_names),
                        lambda main, _: all(f"container {n}" in main.volumes
                                            for n in self.batch_names))

    def init_empty(self):
        def judge(main, _):
            return self.only(main, ["k1", "k2"]) + [
                f"{key} has no root" for key in main.volumes
                if key[0] == "c" and main.digest(key) is None]

        yield Operation("init --empty", lambda: (self.remove_instances(), self.ensure_image()),
                        ["init", "--empty", "k1", "k2", "-s", "main"], judge,
                        lambda main, _: {"container k1", "container k2"} <= set(main.volumes), 0.5)

    def init_where_it_is_not(self):
        """The image has to be unpacked first, and the pool to be mounted."""
        def prepare():
            self.remove_instances()
            self.ensure_image()
            self.lab.run("image", "delete", "small", "-s", "main")

        yield Operation("init of the first", prepare, ["init", "small", "k1", "-s", "main"],
                        lambda main, _: self.each_whole(main) + self.only(main, ["k1"]),
                        lambda main, _: "container k1" in main.volumes, 0.5, True)
        if self.driver == "btrfs":
            yield Operation("init in what is not mounted",
                            lambda: (self.remove_instances(), self.ensure_image()),
                            ["init", "small", "k1", "-s", "main"],
                            lambda main, _: self.each_whole(main) + self.only(main, ["k1"]),
                            lambda main, _: "container k1" in main.volumes, 0.5,
                            is_unmounted=True)
        self.ensure_image()

    def delete(self):
        yield Operation("delete of a batch", self.batch, ["delete", *self.batch_names],
                        lambda main, _: self.each_whole(main) + self.only(main, self.batch_names),
                        lambda main, _: not self.only(main, []))

    def copy(self):
        for what, options in (("copy with snapshots", []), ("copy --full", ["--full"]),
                              ("copy to another pool", ["-s", "other"])):
            yield Operation(what, self.source, ["copy", "s", "t", *options],
                            lambda main, other: self.is_source(main, "s") +
                            self.absent_or_copy(main, "t") + self.absent_or_copy(other, "t") +
                            self.only(main, ["s", "t"]),
                            lambda main, other: any("container t" in walk.volumes
                                                    for walk in (main, other)))

    def copy_of_snapshot(self):
        def judge(main, _):
            bad = self.is_source(main, "s") + self.only(main, ["s", "t"])
            if "container t" in main.volumes:
                bad += self.whole(main, "container t", self.states["container s/one"])
            return bad

        yield Operation("copy of a snapshot", self.source, ["copy", "s/one", "t"], judge,
                        lambda main, _: "container t" in main.volumes, 0.5)

    def snapshot(self):
        def judge(main, _):
            bad = self.is_source(main, "s")
            if "container s/new" in main.volumes:
                bad += self.whole(main, "container s/new", self.states["container s"])
            return bad

        yield Operation("snapshot", self.source, ["snapshot", "s", "new"], judge,
                        lambda main, _: "container s/new" in main.volumes)

    def restore(self):
        def judge(main, _):
            states = dict(self.states)
            live = states.pop("container s")
            bad = self.all_whole(main, states)
            if main.digest("container s") not in (live, states["container s/one"]):
                bad.append("s is neither as it was nor restored")
            return bad

        yield Operation("restore", self.source, ["restore", "s", "one"], judge,
                        lambda main, _: main.digest("container s") ==
                        self.states["container s/one"])

    def rename(self):
        def judge(main, _):
            names = [n for n in ("s", "r") if f"container {n}" in main.volumes]
            return self.is_source(main, names[0]) if len(names) == 1 else [f"names: {names}"]

        yield Operation("rename", self.source, ["rename", "s", "r"], judge,
                        lambda main, _: "container r" in main.volumes)

    def of_snapshots(self):
        def judge(main, _):
            states = {key: want for key, want in self.states.items() if key != "container s/two"}
            bad = self.all_whole(main, states)
            found = [key for key in main.volumes if key.startswith("container s/")]
            gone = "container s/two" not in found
            for key in set(found) - set(states):
                bad += self.whole(main, key, self.states["container s/two"])
            return bad + ([f"snapshots: {found}"] if len(found) != (2 - gone) and not
                          (gone and "container s/three" in found) else [])

        yield Operation("rename of a snapshot", self.source, ["rename", "s/two", "s/three"],
                        judge, lambda main, _: "container s/three" in main.volumes, 0.5)
        yield Operation("delete of a snapshot", self.source, ["delete", "s/two"], judge,
                        lambda main, _: "container s/two" not in main.volumes, 0.5)

    def config(self):
        for key, value in [("user.word", "a word")] + (
                [("size", "500MiB")] if self.driver == "btrfs" else []):
            def get(main, key=key):
                return main.records["container s"].get("config", {}).get(key)

            def judge(main, _, get=get, key=key, value=value):
                bad = self.is_source(main, "s")
                return bad if get(main) in (None, value) else bad + [f"{key} is {get(main)!r}"]

            yield Operation(f"config set {key}", self.source,
                            ["config", "set", "s", f"{key}={value}"], judge,
                            lambda main, _, get=get, value=value: get(main) == value, 0.5)

    def alias(self):
        def names():
            rows = self.lab.json("image", "list")
            return sorted(rows[0]["aliases"]) if rows else None

        def prepare():
            self.remove_instances()
            self.ensure_image()
            for alias in names():
                if alias != "small":
                    self.lab.must("image", "alias", "delete", alias)

        def judge(main, _):
            found = names()
            bad = self.each_whole(main)
            return bad if found in (["small"], ["little", "small"]) else \
                bad + [f"its names are {found}"]

        yield Operation("image alias create", prepare,
                        ["image", "alias", "create", "little", "small"], judge,
                        lambda *_: names() == ["little", "small"], 0.5)
        prepare()

    def move(self):
        def there():
            self.source()
            self.lab.must("move", "s", "s", "-s", "other")

        yield Operation("move to another pool", self.source, ["move", "s", "s", "-s", "other"],
                        self.move_judge, lambda _, other: "container s" in other.volumes)
        yield Operation("move back", there, ["move", "s", "s", "-s", "main"], self.move_judge,
                        lambda main, _: "container s" in main.volumes, 0.5)

    # ---- pools ----

    def storage(self):
        """A pool is there and works, or there is nothing of it."""
        size = {"dir": [], "ceph": ["ceph.osd.pg_num=8", "volume.size=100MiB"]}.get(
            self.driver, ["size=256MiB"])
        name = "victim"

        def row():
            return next((r for r in self.lab.json("storage", "list") if r["name"] == name), None)

        def leftovers():
            places = [os.path.join(self.lab.state, *p) for p in
                      (("disks", name + ".img"), ("storage-pools", name),
                       ("pools", name + ".json"), ("pools", name + ".creating"),
                       ("pools", name + ".deleting"))]
            found = [p for p in places if os.path.lexists(p)]
            found += [p for p in self.lab.mounts() if p.endswith("/" + name)]
            if self.driver == "btrfs" and len(self.lab.loops()) > 1:
                found.append(f"loop devices {self.lab.loops()}")
            if self.driver == "ceph":
                found += [f"the cluster's pool {pool}" for pool in
                          lab.ceph("ceph", "osd", "pool", "ls").split() if name in pool]
            if self.driver == "zfs" and subprocess.run(["zpool", "list", name], check=False,
                                                       capture_output=True).returncode == 0:
                found.append("zpool " + name)
            return found

        def judge(*_):
            if not row():
                return [f"of no pool is left: {leftovers()}"] if leftovers() else []
            done = self.lab.run("init", "small", "probe", "-s", name)
            if done.status != 0:
                return [f"the pool does not work: {done}"]
            self.lab.must("delete", "probe")
            self.lab.must("image", "delete", "small", "-s", name)
            return []

        def absent():
            self.lab.run("storage", "delete", name, "--force")

        def present():
            self.ensure_image()
            if not row():
                self.lab.must("storage", "create", name, self.driver, *size)

        self.ensure_image()
        self.remove_instances()
        yield Operation("storage create", absent,
                        ["storage", "create", name, self.driver, *size], judge,
                        lambda *_: bool(row()))
        yield Operation("storage delete", present, ["storage", "delete", name], judge,
                        lambda *_: not row())
        absent()
        for key, value in [("user.word", "a word")] + (
                [("size", "300MiB")] if self.driver == "btrfs" else []):
            yield Operation(f"storage set {key}", lambda: (absent(), present()),
                            ["storage", "set", name, f"{key}={value}"], judge,
                            lambda *_, key=key, value=value: row()["config"].get(key) == value,
                            0.5)
        absent()

    def recover(self):
        """What is known of a pool is lost but for the pool itself."""
        name, source = "found", self.lab.path("found")

        def rows():
            return [row for row in self.lab.json("storage", "list") if row["name"] == name]

        def prepare():
            # What was not recovered can be, and lies mounted until it is
            if os.path.exists(source) and not rows():
                self.lab.run("storage", "recover", name, self.driver, "source=" + source)
            if rows():
                self.lab.must("storage", "delete", name, "--force")
            if self.driver == "btrfs":
                with open(source, "wb") as file:
                    file.truncate(256 << 20)
            else:
                shutil.rmtree(source, ignore_errors=True)
                os.makedirs(source)
            self.lab.must("storage", "create", name, self.driver, "source=" + source)
            self.lab.must("storage", "umount", name)
            os.unlink(os.path.join(self.lab.state, "pools", name + ".json"))

        def judge(*_):
            if not rows():
                return []
            done = self.lab.run("storage", "info", name)
            return [] if done.status == 0 else [f"the pool does not work: {done}"]

        def is_done(*_):
            return bool(rows())

        if self.driver in ("dir", "btrfs"):
            yield Operation("storage recover", prepare,
                            ["storage", "recover", name, self.driver, "source=" + source],
                            judge, is_done, 0.5)
            self.lab.run("storage", "delete", name, "--force")

    def operations(self):
        """Each in its turn: what one makes ready may be gone when the next begins."""
        for of in (self.import_others, self.import_image, self.init, self.init_empty,
                   self.init_where_it_is_not,
                   self.copy, self.copy_of_snapshot, self.snapshot, self.restore, self.rename,
                   self.of_snapshots, self.config, self.delete, self.move, self.alias,
                   self.image_export, self.image_delete, self.storage, self.recover):
            yield from of()
