"""The client programs: what there is, how each is fetched and built, how it is started.

What is fetched and built goes to $WEIRMQ_CACHE, else ~/.cache/weirmq/e2e.
"""
import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(os.environ.get("WEIRMQ_CACHE") or "~/.cache/weirmq/e2e").expanduser().resolve()

JAVA_FEATURES = ("sync async oneway batch ordered push broadcast tags lite-pull pull retry dlq query"
                 " offsets").split()
JAVA_TLS_FEATURES = "sync async oneway batch ordered push tags pull".split()
JAVA = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", "-Xshare:auto"]


class Client:
    """One client program: how it is built and started, and what it can do.

    `build` gets the folder to build into, which holds nothing else; `command` gets the same
    folder and gives the program's start, to which name server, prefix and features are appended.
    A `patient` program hardly computes and runs beside the others; a feature that is `alone`
    disturbs them and runs when they have ended.
    """

    def __init__(self, name, folders, tool, build, command, features, time_limit=90, patient=False, alone=()):
        self.name = name
        self.folders = folders
        self.tool = tool
        self.build = build
        self.command = command
        self.features = features
        self.time_limit = time_limit
        self.patient = patient
        self.alone = alone

    @property
    def built(self):
        return CACHE / self.folders[0]

    def stamp(self):
        """A hash of the sources and lock files, so that only a change builds again."""
        digest = hashlib.sha256()
        for folder in self.folders:
            for path in sorted((HERE / folder).rglob("*")):
                if path.is_file() and not {"target", "node_modules"} & set(path.relative_to(HERE).parts):
                    digest.update(str(path.relative_to(HERE)).encode())
                    digest.update(path.read_bytes())
        return digest.hexdigest()


# --- builds ---------------------------------------------------------------------------------


def shell(command, cwd, **environment):
    """Runs a build step quietly; its output is shown only if it fails."""
    done = subprocess.run(["nice", "-n", "5"] + [str(part) for part in command], cwd=cwd,
                          env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(str(part) for part in command)}:\n{done.stdout[-4000:]}")


def build_maven(folder):
    def build(out):
        # Jars of an older version must not stay on the class path.
        shutil.rmtree(out, ignore_errors=True)
        shell(["mvn", "-q", "-B", f"-Dbuild.dir={out}", "process-classes"], HERE / folder)
    return build


def build_go(out):
    shell(["go", "build", "-o", out / "matrix", "."], HERE / "go")
    shell(["go", "build", "-o", out / "stream", "./stream"], HERE / "go")


def build_cpp(out):
    shell([sys.executable, "-m", "venv", out / "venv"], HERE)
    shell([out / "venv" / "bin" / "pip", "install", "-q", "-r", HERE / "cpp" / "requirements.txt"], HERE)


def build_node(out):
    for name in ("package.json", "package-lock.json", "matrix.js"):
        shutil.copy(HERE / "node" / name, out)
    shell(["npm", "ci", "--no-audit", "--no-fund"], out)


def build_rust(out):
    shell(["cargo", "build", "--locked", "--quiet"], HERE / "rust", CARGO_TARGET_DIR=str(out))


def start_java(main, *options):
    def command(out):
        return JAVA + list(options) + ["-cp", f"{out}/classes:{out}/lib/*", main]
    return command


def java_clients():
    quick = ["-Drocketmq.client.rebalance.waitInterval=500", "-Drocketmq.client.rebalance.minInterval=200"]
    for version, folder in (("4.9.8", "java49"), ("5.5.0", "java55")):
        for suffix, options, features in (
                ("", [], JAVA_FEATURES),
                ("-binary", ["-Drocketmq.serialize.type=ROCKETMQ"], JAVA_FEATURES),
                ("-tls", ["-Dtls.enable=true"], JAVA_TLS_FEATURES)):
            yield Client(f"java-{version}{suffix}", [folder, "java"], "mvn", build_maven(folder),
                         start_java("Matrix", *quick, *options), features)


CLIENTS = [
    # First, because it takes longest: each command starts and ends a client of its own.
    Client("mqadmin", ["mqadmin"], "mvn", build_maven("mqadmin"), start_java("Mqadmin"),
           "cluster topic group message connection kv replicas config write-perm".split(), time_limit=150, patient=True,
           alone=("write-perm",)),
    *java_clients(),
    Client("go", ["go"], "go", build_go, lambda out: [str(out / "matrix")],
           "sync async oneway batch ordered push tags pull".split()),
    Client("cpp", ["cpp"], "python3", build_cpp,
           lambda out: [str(out / "venv" / "bin" / "python"), "-B", str(HERE / "cpp" / "matrix.py")],
           "sync oneway pull push".split()),
    Client("node", ["node"], "npm", build_node, lambda out: ["node", str(out / "matrix.js")],
           "sync push broadcast tags".split()),
    Client("rust", ["rust"], "cargo", build_rust, lambda out: [str(out / "debug" / "rust-client-matrix")],
           "sync oneway batch push tags pull".split()),
]


def ensure_built(client):
    """Builds unless the stamp says that this was done; returns why it cannot be built, if so."""
    if shutil.which(client.tool) is None:
        return f"{client.tool} is not installed"
    stamp_file = client.built.with_name(client.built.name + ".stamp")
    stamp = client.stamp()
    if stamp_file.exists() and stamp_file.read_text() == stamp:
        return None
    stamp_file.unlink(missing_ok=True)
    client.built.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    print(f"building {client.folders[0]} ...", file=sys.stderr, flush=True)
    client.build(client.built)
    stamp_file.write_text(stamp)
    print(f"built {client.folders[0]} in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    return None


def locked():
    """Held while programs are built: two runs share the folders."""
    CACHE.mkdir(parents=True, exist_ok=True)
    lock = open(CACHE / "lock", "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


# Programs that go on until they are told to end, by the client that they are built with: they produce or consume
# (`java/src/Stream.java` says how), or run mqadmin's commands (`mqadmin/src/Session.java`).
STREAMS = {"java-4.9.8": start_java("Stream"), "java-5.5.0": start_java("Stream"), "mqadmin": start_java("Session"),
           "go": lambda out: [str(out / "stream")]}


def stream(name):
    """The start of a streaming program, which is built first if need be, and why there is none if so."""
    client = next(client for client in CLIENTS if client.name == name)
    with locked():
        missing = ensure_built(client)
    return (None, missing) if missing else (STREAMS[name](client.built), None)
