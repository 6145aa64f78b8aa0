"""An ext4 file system of our own whose power can be cut, and what is needed to cut it.

The power cut is the file system's shutdown ioctl: from that moment nothing more reaches the device,
neither data nor journal. What stands in the page cache is lost with the unmount, as it is with the
machine's power. What had been sent to the device before stays, also where nobody asked for a flush of
the device's own cache: a loop device has none.
"""
import ctypes
import errno
import fcntl
import os
import random
import shutil
import struct
import subprocess
import tempfile
import time

SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
LOG_FLUSH, NO_LOG_FLUSH = 1, 2
SYNC_FILE_RANGE_WRITE = 2
LIBC = ctypes.CDLL(None, use_errno=True)


def why_not():
    """Why power cannot be cut here, or None."""
    if os.geteuid() != 0:
        return "needs root, for a loop device and mount"
    missing = [tool for tool in ("mkfs.ext4", "losetup", "mount", "umount") if not shutil.which(tool)]
    if missing:
        return f"needs {', '.join(missing)}"
    if not os.path.exists("/dev/loop-control"):
        return "needs loop devices"
    with open("/proc/filesystems") as known:
        if "\text4\n" not in known.read():
            return "needs ext4 in the kernel"
    try:
        with Image(16 << 20) as image:
            image.mount()
            image.cut(NO_LOG_FLUSH)
    except (OSError, subprocess.CalledProcessError) as error:
        detail = getattr(error, "stderr", None) or error
        return f"a trial cut failed: {str(detail).strip()}"
    return None


def cut(point, flags=NO_LOG_FLUSH):
    """Cuts the power of the file system that is mounted at `point`."""
    directory = os.open(point, os.O_RDONLY)
    try:
        fcntl.ioctl(directory, SHUTDOWN, struct.pack("I", flags))
    finally:
        os.close(directory)


def kept_in(failures):
    """A new directory for what failed."""
    place = os.path.join(failures, time.strftime("%Y%m%d-%H%M%S"))
    while os.path.exists(place):
        place += "+"
    os.makedirs(place)
    return place


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


class Image:
    """A file with ext4 in it, on a loop device. Everything it made goes at the end of `with`.

    `limit` puts the file on a tmpfs of so many bytes: a thin device that runs full while its file
    system still believes in free blocks. Where the block fails with an exception the image stays, in a
    directory below `failures`.
    """

    def __init__(self, size, limit=None, failures=None):
        self.size, self.limit, self.failures = size, limit, failures
        self.loop = None
        self.is_mounted = False

    def __enter__(self):
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = tempfile.mkdtemp(prefix="weir-crash-", dir=base)
        self.point = os.path.join(self.folder, "mount")
        self.thin = os.path.join(self.folder, "thin")
        os.mkdir(self.point)
        os.mkdir(self.thin)
        self.has_thin = False
        try:
            if self.limit:
                run("mount", "-t", "tmpfs", "-o", f"size={self.limit}", "weir-crash", self.thin)
                self.has_thin = True
            self.file = os.path.join(self.thin, "image")
            self.format()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, kind=None, *_):
        self.unmount()
        self.detach()
        if self.failures and kind and issubclass(kind, Exception):
            place = kept_in(self.failures)
            self.keep(os.path.join(place, "image"))
            print(f"kept in {place}", flush=True)
        if self.has_thin:
            run("umount", self.thin)
        shutil.rmtree(self.folder)

    def format(self):
        """Begins anew with an empty file system."""
        self.unmount()
        self.detach()
        with open(self.file, "wb") as file:
            file.truncate(self.size)
        run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", self.file)
        self.attach()

    def attach(self):
        self.loop = run("losetup", "--find", "--show", self.file)

    def detach(self):
        if self.loop:
            run("losetup", "-d", self.loop)
            self.loop = None

    def mount(self):
        run("mount", "-o", "noatime", self.loop, self.point)
        self.is_mounted = True
        if self.is_still_cut():
            # Who made a mount namespace meanwhile (`ip netns exec`, `unshare -m`) got a mount of his own, and
            # with it the file system as the cut left it lives on. On another device it begins anew.
            self.unmount()
            self.detach()
            self.keep(f"{self.file}.copy")
            os.replace(f"{self.file}.copy", self.file)
            self.attach()
            run("mount", "-o", "noatime", self.loop, self.point)
            self.is_mounted = True

    def is_still_cut(self):
        probe = os.path.join(self.point, ".probe")
        try:
            os.close(os.open(probe, os.O_CREAT | os.O_WRONLY))
            os.unlink(probe)
        except OSError as error:
            return error.errno == errno.EIO
        return False

    def unmount(self):
        if self.is_mounted:
            run("umount", self.point)
            self.is_mounted = False

    def cut(self, flags):
        cut(self.point, flags)

    def keep(self, path):
        """Copies the unmounted device's contents."""
        run("cp", "--sparse=always", self.file, path)


def push_pages(folder, dice: random.Random, around, pages):
    """Starts write-back of single pages in random order: of the log around a position, and of the
    files derived from it. Says how many it pushed. Nothing waits for the pages, nothing is flushed.
    """
    pushed = 0
    files = []
    for part in ("commitlog", "weir/queues", "weir/keys", "weir", "weir/user"):
        place = os.path.join(folder, part)
        for name in sorted(os.listdir(place)) if os.path.isdir(place) else []:
            path = os.path.join(place, name)
            if os.path.isfile(path):
                files.append((part, name, path))
    for _ in range(pages):
        if not files:
            break
        segments = [file for file in files if file[0] == "commitlog" and file[1].isdigit()]
        part, name, path = dice.choice(segments if segments and dice.random() < 0.8 else files)
        try:
            handle = os.open(path, os.O_RDONLY)
        except OSError:
            continue  # It was renamed or removed meanwhile, or the power is off.
        try:
            size = os.fstat(handle).st_size
            low, high = 0, max(size - 1, 0)
            if part == "commitlog" and name.isdigit():
                near = around - int(name)
                if not -(1 << 20) < near < size + (1 << 20):
                    continue
                low, high = max(0, near - (256 << 10)), max(0, min(high, near + (512 << 10)))
            at = dice.randint(min(low, high), high) & ~4095
            flags = SYNC_FILE_RANGE_WRITE
            done = LIBC.sync_file_range(handle, ctypes.c_int64(at), ctypes.c_int64(4096), flags)
            pushed += done == 0
        finally:
            os.close(handle)
    return pushed
