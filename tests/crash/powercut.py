# SPDX-License-Identifier: Apache-2.0
"""What tests of power cuts share: commands that change storage, one after the other; a host
whose files can be cloned; a pool that was cut, taken over as after a machine was lost; and
what must be in it.
"""

import fcntl
import os
import subprocess

import lab

FICLONE = 0x40049409


class Host:
    """An XFS in a file, or on a device, for it can clone files; taken away at the end."""

    def __init__(self, here, device=None, driver="btrfs"):
        self.lab, self.driver = here, driver
        self.image, self.top = device or here.path("host.img"), here.path("host")
        os.mkdir(self.top)
        if not device:
            with open(self.image, "wb") as file:
                file.truncate(4 << 30)
        for argv in (["mkfs.xfs", "-q", "-f", self.image],
                     ["mount", *([] if device else ["-o", "loop"]), self.image, self.top]):
            done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  check=False)
            if done.returncode != 0:
                lab.skip_all(f"no XFS on {self.image}: {done.stdout.decode().strip()}")

    def close(self):
        subprocess.run(["umount", self.top], check=False, stderr=subprocess.DEVNULL)

    def clone(self, file):
        """What the file holds in this instant; nothing is frozen or synced for it."""
        path = os.path.join(self.top, "cut.img")
        with open(path, "wb") as target, open(file, "rb") as source:
            fcntl.ioctl(target, FICLONE, source.fileno())
        return path

    def take_over(self, path, examine=lambda top: []):
        """(state, complaints) of a pool "main" in a file, once the next command has run on it,
        of a machine that knows nothing. What else is to be said of where it is mounted is for
        examine(). The file stays."""
        root = os.path.join(self.top, "after")
        bad = []
        self.lab.must("storage", "recover", "main", self.driver, f"source={path}", root=root)
        listed = [row["name"] for row in self.lab.json("list", root=root)]
        found = self.lab.run("check", root=root)
        if found.status != 0:
            bad.append(f"check: {found}")
        if listed and self.driver == "lvm" and \
                self.lab.json("info", listed[0], root=root)["unique"] is None:
            bad.append("figures are unknown")
        top = self.lab.pool("main", self.driver, root)
        walk = lab.walk(top)
        bad += walk.problems
        if walk.drafts or walk.deleted:
            bad.append(f"left: drafts {walk.drafts}, deleted {walk.deleted}")
        there = [key.split()[1] for key in walk.volumes if key[0] == "c" and "/" not in key]
        if sorted(listed) != sorted(there):
            bad.append(f"listed {listed}, in the pool {there}")
        state = walk.state()
        bad += examine(top)
        self.let_go()
        return state, bad

    def let_go(self, is_broken=False):
        """Of what was taken over, or was not, as it is broken."""
        root = os.path.join(self.top, "after")
        (self.lab.run if is_broken else self.lab.must)("storage", "umount", "main", root=root)
        subprocess.run(["rm", "-rf", "--", root], check=True)


# ---- what must be there ----

def lost(want, got):
    """Complaints, after all had been acknowledged that made it as it should be."""
    return [f"{key}: {'is lost' if key not in got else 'is another' if key in want else 'is back'}"
            for key in sorted(set(want) | set(got)) if want.get(key) != got.get(key)]


def half(before, after, got, written=()):
    """Complaints, where the cut came in mid-command. Of what was written meanwhile there may be
    a part."""
    bad = [f"{key} is neither as before nor as after"
           for key in sorted((set(before) | set(after) | set(got)) - set(written))
           if got.get(key) not in (before.get(key), after.get(key))]

    def uuids(state):
        return [record["uuid"] for record, _ in state.values()]
    stay = set(uuids(before)) & set(uuids(after))
    found = uuids(got)
    return bad + [f"{uuid} is there {found.count(uuid)} times" for uuid in stay
                  if found.count(uuid) != 1]


# ---- commands ----

class Write:
    """A file of a container, written and synced; what it lies in is not."""

    def __init__(self, instance, name):
        self.instance, self.name = instance, name

    def __call__(self, here):
        with open(os.path.join(here.must("path", self.instance), "etc", self.name), "wb") as file:
            file.write(self.name.encode() * 5000)
            os.fsync(file.fileno())


def story(image, batch):
    """Every kind of command that changes a pool "main"; each a list of words, or a Write."""
    return (["image", "import", image, "--alias", "small", "-s", "main"],
            ["init", "small", "c1"],
            ["init", "small", *batch],
            ["snapshot", "c1", "one"],
            ["copy", "c1", "c2"],
            ["copy", "c1/one", "c3"],
            ["copy", "c1", "c4", "--full"],
            ["copy", "c1", "c5", "--instance-only"],
            ["rename", "c5", "c6"],
            ["rename", "c1/one", "two"],
            Write("c1", "new"),
            ["snapshot", "c1", "three"],
            ["copy", "c1", "c2", "--refresh"],
            ["restore", "c1", "two"],
            ["config", "set", "c1", "user.note=kept"],
            ["delete", "c1/three"],
            ["delete", *batch],
            ["image", "delete", "small"],
            ["delete", "c1", "c2", "c3", "c4", "c6"])
