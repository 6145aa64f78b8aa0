"""Packs a folder as an image: an archive in the OCI image layout, which `ctr images import`, `docker
load` (25 and newer) and `skopeo copy oci-archive:` take. The same folder gives the same bytes."""

import gzip
import hashlib
import io
import json
import pathlib
import platform
import tarfile

LAYOUT = {"imageLayoutVersion": "1.0.0"}
TYPE = "application/vnd.oci.image"


def here():
    """This machine's architecture, as images call it."""
    return {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]


def layer(folder):
    """The files of `folder` as a tar: sorted, owned by root, without times."""
    folder, packed = pathlib.Path(folder), io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            entry = tar.gettarinfo(path, arcname=str(path.relative_to(folder)))
            entry.uid = entry.gid = entry.mtime = 0
            entry.uname = entry.gname = ""
            if entry.isreg():
                with open(path, "rb") as file:
                    tar.addfile(entry, file)
            else:
                tar.addfile(entry)
    return packed.getvalue()


def pack(folder, config, name, out, architecture):
    """Writes the image `name` to `out`; `config` are the settings as the OCI image specification
    names them (User, Entrypoint, …). Returns the size of the layer as it is sent to a registry."""
    blobs = {}

    def descriptor(media, content):
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(content)}

    files = layer(folder)
    compressed = gzip.compress(files, compresslevel=6, mtime=0)
    packed = descriptor(f"{TYPE}.layer.v1.tar+gzip", compressed)
    settings = {
        "architecture": architecture, "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(files).hexdigest()}"]},
    }
    manifest = {
        "schemaVersion": 2, "mediaType": f"{TYPE}.manifest.v1+json",
        "config": descriptor(f"{TYPE}.config.v1+json", json.dumps(settings).encode()), "layers": [packed],
    }
    top = descriptor(manifest["mediaType"], json.dumps(manifest).encode())
    tag = name.rsplit(":", 1)[-1]
    # containerd reads the first annotation, everybody else the second.
    top["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag}
    top["platform"] = {"architecture": architecture, "os": "linux"}
    index = {"schemaVersion": 2, "mediaType": f"{TYPE}.index.v1+json", "manifests": [top]}
    members = {"oci-layout": json.dumps(LAYOUT).encode(), "index.json": json.dumps(index).encode(), **blobs}
    with tarfile.open(out, "w", format=tarfile.GNU_FORMAT) as tar:
        for member in sorted(members):
            entry = tarfile.TarInfo(member)
            entry.size, entry.mode = len(members[member]), 0o644
            tar.addfile(entry, io.BytesIO(members[member]))
    return len(compressed)
