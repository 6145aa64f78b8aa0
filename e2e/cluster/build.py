#!/usr/bin/env python3
"""Builds the programs of a Kubernetes from Go modules, once.

    build.py                     all of them
    build.py kube etcd           these
    build.py --check kube etcd   builds nothing; the exit code is 0 if these are built and up to date

| name | what | about |
| --- | --- | --- |
| kube | kube-apiserver, -controller-manager, -scheduler, -proxy, kubelet, kubectl 1.34.4: one file, a link each | 5 min |
| etcd | 3.6.16 | 1 min |
| coredns | 1.15.0 | 1 min |
| pause | what holds a pod's namespaces | 5 s |
| helm, kubeconform | 3.22.0, 0.8.0 | 2 min |

They go to `kubernetes/` in $WEIRMQ_CACHE, else ~/.cache/weirmq/e2e, each with a stamp of the files
here that it was made from. Go's own caches, up to 6 GiB, are temporary. It needs Go and nothing else.
"""

import argparse
import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "images"))
import oci  # noqa: E402

SOURCES = HERE / "programs"
CACHE = pathlib.Path(os.environ.get("WEIRMQ_CACHE") or "~/.cache/weirmq/e2e").expanduser().resolve()
BUILT = CACHE / "kubernetes"
COMPONENTS = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"]
# Programs that are built from their own module as it is.
RELEASES = {
    "helm": "helm.sh/helm/v3/cmd/helm@v3.22.0",
    "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0",
}
PROGRAMS = ["kube", "etcd", "coredns", "pause", *RELEASES]
# Programs that run in pods, as images localhost/NAME:1.
IN_PODS = ["coredns", "pause"]


def stamp(name):
    """What the program is made from, as one number."""
    if name in RELEASES:
        return RELEASES[name]
    digest = hashlib.sha256()
    for path in sorted([*(SOURCES / name).glob("go.*"), *(SOURCES / name).glob("*.go")]):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def is_built(name):
    file = BUILT / f"{name}.stamp"
    return file.exists() and file.read_text() == stamp(name) and (name not in IN_PODS or image(name).exists())


def image(name):
    return BUILT / "images" / f"{name}.tar"


def pack(name):
    """The program alone, as the root of an image."""
    image(name).parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as root:
        shutil.copy(BUILT / name, root)
        oci.pack(root, {"Entrypoint": [f"/{name}"]}, f"localhost/{name}:1", image(name), oci.here())


def version_flags():
    """Kubernetes says its version as its releases do; kubectl and the API server compare them."""
    release = next(line.split()[1] for line in (SOURCES / "kube/go.mod").read_text().splitlines()
                   if line.strip().startswith("k8s.io/kubernetes "))
    major, minor, _ = release.removeprefix("v").split(".")
    values = {"gitVersion": release, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean",
              "buildDate": "1970-01-01T00:00:00Z"}
    packages = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"]
    return " ".join(f"-X {package}.{key}={value}" for package in packages for key, value in values.items())


def build(names):
    """Builds those of `names` that are not up to date; waits for another process that does."""
    names = [name for name in names if not is_built(name)]
    if not names:
        return
    BUILT.mkdir(parents=True, exist_ok=True)
    with open(BUILT / "lock", "w") as lock, tempfile.TemporaryDirectory(dir=BUILT, prefix="go-") as scratch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        environment = os.environ | {
            "GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOFLAGS": "-trimpath -buildvcs=false -modcacherw",
            "GOCACHE": f"{scratch}/cache", "GOMODCACHE": f"{scratch}/modules", "GOBIN": f"{scratch}/bin",
            "TMPDIR": scratch,
        }
        for name in names:
            if is_built(name):
                continue
            print(f"building {name}", flush=True)
            begun = time.monotonic()
            flags = "-s -w"
            made = pathlib.Path(scratch, "bin", name)
            if name in RELEASES:
                command, folder = ["go", "install", "-ldflags", flags, RELEASES[name]], scratch
            else:
                if name == "kube":
                    flags += " " + version_flags()
                command, folder = ["go", "build", "-ldflags", flags, "-o", made, "."], SOURCES / name
            subprocess.run(command, cwd=folder, env=environment, check=True)
            os.replace(made, BUILT / name)
            if name == "kube":
                for component in COMPONENTS:
                    link = BUILT / component
                    link.unlink(missing_ok=True)
                    link.symlink_to(name)
            if name in IN_PODS:
                pack(name)
            (BUILT / f"{name}.stamp").write_text(stamp(name))
            print(f"built {name} in {time.monotonic() - begun:.0f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("names", nargs="*", metavar="PROGRAM")
    arguments = parser.parse_args()
    names = arguments.names or PROGRAMS
    if unknown := [name for name in names if name not in PROGRAMS]:
        parser.error(f"{unknown[0]} is none of {', '.join(PROGRAMS)}")
    missing = [name for name in names if not is_built(name)]
    if arguments.check:
        if missing:
            print(f"not built: {', '.join(missing)}")
        return 1 if missing else 0
    if missing and not shutil.which("go"):
        print("go is missing; install Go 1.26 or newer", file=sys.stderr)
        return 1
    build(missing)
    return 0


if __name__ == "__main__":
    sys.exit(main())
