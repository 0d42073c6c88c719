# SPDX-License-Identifier: Apache-2.0
"""The log that the kernel's target log-writes makes of what was written to a disk, and the disk
as a power cut would have left it at any point of that. The format is as the kernel's
drivers/md/dm-log-writes.c says: a sector that describes the log; then, for each entry, one that
describes it, and what was written. All in little endian, and in sectors of the disk.

A write is logged when a flush that began after it has ended, so what precedes an entry is what
the disk must have by then; a mark, when it is made.
"""

import collections
import os
import struct
import subprocess

FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
MAGIC = 0x6a736677736872
# offset: of the data in the log; what is written is at start, of that length, in bytes.
Entry = collections.namedtuple("Entry", "flags start length offset mark")


class Device:
    """A disk that logs what is written to it."""

    NAME = "coppice-log-writes"

    def __init__(self, disk, log):
        self.disk, self.log, self.path = disk, log, f"/dev/mapper/{self.NAME}"
        size = subprocess.run(["blockdev", "--getsz", disk], stdout=subprocess.PIPE, check=True)
        self.dmsetup("create", self.NAME, "--table",
                     f"0 {int(size.stdout)} log-writes {disk} {log}")

    def dmsetup(self, *args):
        subprocess.run(["dmsetup", *args], check=True)

    def mark(self, text):
        self.dmsetup("message", self.NAME, "0", "mark", text)

    def close(self):
        self.dmsetup("remove", self.NAME)


class Log:
    def __init__(self, path):
        self.file = os.open(path, os.O_RDONLY)
        magic, version, count, sector = struct.unpack("<QQQI", os.pread(self.file, 28, 0))
        if (magic, version) != (MAGIC, 1):
            raise ValueError(f"{path} is no log of log-writes: {magic:x} {version}")
        self.entries = []
        at = sector
        for _ in range(count):
            head = os.pread(self.file, sector, at)
            start, length, flags, n = struct.unpack("<QQQQ", head[:32])
            at += sector
            mark = head[32:32 + n].decode() if flags & MARK else None
            self.entries.append(Entry(flags, start * sector, length * sector, at, mark))
            if not flags & (DISCARD | MARK):
                at += length * sector

    def close(self):
        os.close(self.file)

    def flushes(self):
        """Entries after which the disk must have kept something."""
        return [i for i, entry in enumerate(self.entries) if entry.flags & (FLUSH | FUA)]

    def marks(self):
        return {entry.mark: i for i, entry in enumerate(self.entries) if entry.mark}

    def unflushed(self, n):
        """After n entries, those that the disk may or may not have yet, as no flush ended."""
        found = []
        for i in range(n, len(self.entries)):
            entry = self.entries[i]
            if entry.flags & (FLUSH | FUA | MARK):
                break
            found.append(i)
        return found

    def is_noise(self, i):
        """Is it of bytes of many kinds? Then it is no metadata."""
        entry = self.entries[i]
        return all(len(set(os.pread(self.file, 4096, entry.offset + at))) > 200
                   for at in range(0, entry.length, 4096))

    def write(self, path, numbers):
        """Onto a file, what these entries wrote, in this order. What was discarded is zeros."""
        with open(path, "r+b", buffering=0) as target:
            for i in numbers:
                entry = self.entries[i]
                if entry.flags & DISCARD:
                    subprocess.run(["fallocate", "--punch-hole", "--offset", str(entry.start),
                                    "--length", str(entry.length), path], check=True)
                elif entry.length:
                    data = os.pread(self.file, entry.length, entry.offset)
                    if len(data) != entry.length or \
                            os.pwrite(target.fileno(), data, entry.start) != entry.length:
                        raise OSError(f"entry {i} of the log was not copied")
