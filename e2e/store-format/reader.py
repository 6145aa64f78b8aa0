"""Reads a store's directory by docs/store-format.md alone: log, state, queue files, key files.

Nothing here comes from the Rust code, so that the page and the program can be held against each
other. Standard library only.
"""
import json
import struct
import zlib
from pathlib import Path

V1, V2, BLANK = 0xDAA320A7, 0xDAA320AB, 0xCBD43194
BLOCK_ENTRIES = [3, 6, 12, 25, 51, 102, 204]
WORD = (1 << 64) - 1


class Damage(Exception):
    """Bytes that are not what the page says."""


def small_file(path):
    """The JSON of one of the small files."""
    head, contents = path.read_bytes().split(b"\n", 1)
    if head != b"weir1 %08x" % zlib.crc32(contents):
        raise Damage(f"{path}: wrong checksum")
    return json.loads(contents)


def record(data, at, position):
    """The record at `at` of a segment's bytes, as a dictionary, and its size."""
    size, magic, crc, queue_id, flag, queue_offset, physical, sys_flag, born = struct.unpack_from(
        ">iIIiiqqiq", data, at)
    if magic not in (V1, V2) or physical != position:
        raise Damage(f"no record at {position}")
    end, at = at + size, at + 48
    at += 20 if sys_flag & 0x10 else 8
    (stored,) = struct.unpack_from(">q", data, at)
    at += 8 + (20 if sys_flag & 0x20 else 8)
    reconsumed, prepared, length = struct.unpack_from(">iqi", data, at)
    at += 16
    body = data[at:at + length]
    at += length
    if zlib.crc32(body) & 0x7FFFFFFF != crc & 0x7FFFFFFF:
        raise Damage(f"body of the record at {position}: wrong checksum")
    if magic == V1:
        length, at = data[at], at + 1
    else:
        (length,) = struct.unpack_from(">h", data, at)
        at += 2
    topic = data[at:at + length].decode()
    at += length
    (length,) = struct.unpack_from(">h", data, at)
    properties = data[at + 2:at + 2 + length]
    if at + 2 + length != end:
        raise Damage(f"lengths of the record at {position} do not fit its size")
    pairs = [pair.split(b"\1", 1) for pair in properties.split(b"\2") if b"\1" in pair]
    return {
        "position": position, "size": size, "topic": topic, "queueId": queue_id, "flag": flag,
        "queueOffset": queue_offset, "sysFlag": sys_flag, "bornTimestamp": born,
        "storeTimestamp": stored, "reconsumeTimes": reconsumed,
        "preparedTransactionOffset": prepared, "body": body,
        "properties": [[name.decode(), value.decode()] for name, value in pairs],
    }


def segment_starts(root):
    names = [path.name for path in (root / "commitlog").iterdir()]
    return sorted(int(name) for name in names if len(name) == 20 and name.isdigit())


def records(root):
    """All records of the log, in order."""
    end = small_file(root / "weir/durable-mark")["flushed"]
    for start in segment_starts(root):
        data = (root / f"commitlog/{start:020}").read_bytes()
        at = 0
        while len(data) - at >= 8 and start + at < end:
            size, magic = struct.unpack_from(">iI", data, at)
            if magic == BLANK:
                if at + size != len(data):
                    raise Damage(f"padding at {start + at} does not reach the segment's end")
                break
            if size == 0 and magic == 0:
                raise Damage(f"zeros at {start + at}, below the durable mark")
            found = record(data, at, start + at)
            yield found
            at += found["size"]


def empty_state():
    return {"topics": {}, "groups": {}, "offsets": {}, "locks": {}, "delay": {}}


def apply(state, change):
    """Changes the tables by what one record of state says."""
    kind = change.pop("kind")
    if change.pop("version") != 1:
        raise Damage("a record of state of another version")
    if kind == "topic":
        state["topics"][change["topic"]["name"]] = change["topic"]
    elif kind == "topicDeleted":
        name = change["name"]
        state["topics"].pop(name, None)
        for table in ("offsets", "locks"):
            state[table] = {key: value for key, value in state[table].items() if key[1] != name}
    elif kind == "group":
        state["groups"][change["group"]["groupName"]] = change["group"]
    elif kind == "groupDeleted":
        name = change["name"]
        state["groups"].pop(name, None)
        for table in ("offsets", "locks") if change["with_offsets"] else ("locks",):
            state[table] = {key: value for key, value in state[table].items() if key[0] != name}
    elif kind == "offsets":
        for one in change["offsets"]:
            state["offsets"][one["group"], one["topic"], one["queue"]] = one["offset"]
    elif kind == "queueLock":
        key = change["group"], change["topic"], change["queue"]
        state["locks"][key] = change["owner"]
        if change["owner"] is None:
            del state["locks"][key]
    elif kind == "delayProgress":
        state["delay"][change["level"]] = change["offset"]
    elif kind not in ("epoch", "imageBegin", "imageEnd"):
        raise Damage(f"a record of state of the unknown kind {kind}")


def state_of(found):
    """The broker's tables, from the records of a log that still has its beginning."""
    state = empty_state()
    entries = [one for one in found if one["topic"] == "weirmq.state"]
    if [one["queueOffset"] for one in entries] != list(range(len(entries))):
        raise Damage("the log does not have all records of state")
    for one in entries:
        apply(state, json.loads(one["body"]))
    return state


def state_by_snapshot(root, found):
    """The same by the snapshot, and what came after it."""
    snapshot = small_file(root / "weir/user/state-snapshot.json")
    if snapshot["position"] > small_file(root / "weir/durable-mark")["flushed"]:
        raise Damage("the snapshot is ahead of the log")
    last = snapshot["last"]
    before = [
        (one["position"], one["storeTimestamp"], zlib.crc32(one["body"])) for one in found
        if one["topic"] == "weirmq.state" and one["queueOffset"] == snapshot["applied"] - 1
    ]
    if before != [(last["position"], last["stored"], last["body_crc"])]:
        raise Damage("the snapshot is one of another log")
    state = empty_state()
    for change in snapshot["records"]:
        apply(state, change)
    for one in found:
        if one["topic"] == "weirmq.state" and one["queueOffset"] >= snapshot["applied"]:
            apply(state, json.loads(one["body"]))
    return state


def sealed(path, magic, start):
    """Data, directory and covered position of a queue or key file."""
    data = path.read_bytes()
    footer = data[-40:]
    found, begins, covered, directory_at, crc, own_crc = struct.unpack(">8sQQQII", footer)
    if zlib.crc32(footer[:36]) != own_crc or (found, begins) != (magic, start):
        raise Damage(f"{path}: no footer")
    directory = data[directory_at:-40]
    if zlib.crc32(directory) != crc:
        raise Damage(f"{path}: directory with a wrong checksum")
    return data, directory, covered


def queue_entries(root, start):
    """{(topic, queue id): [(queue offset, physical offset, size, tag hash)]} of one segment."""
    data, directory, _ = sealed(root / f"weir/queues/{start:020}", b"WEIRQUE2", start)
    queues, at = {}, 0
    while at < len(directory):
        (length,) = struct.unpack_from(">H", directory, at)
        topic = directory[at + 2:at + 2 + length].decode()
        at += 2 + length
        queue_id, offset, left = struct.unpack_from(">iQQ", directory, at)
        at += 20
        entries, block = queues.setdefault((topic, queue_id), []), 0
        while left:
            (unit,) = struct.unpack_from(">I", directory, at)
            count = min(left, BLOCK_ENTRIES[min(block, 6)])
            end = unit * 64 + count * 20
            if struct.unpack_from(">I", data, end) != (zlib.crc32(data[unit * 64:end]),):
                raise Damage(f"queue block at {unit * 64} of segment {start}: wrong checksum")
            for index in range(count):
                entry = struct.unpack_from(">QIq", data, unit * 64 + index * 20)
                entries.append((offset, *entry))
                offset += 1
            at, left, block = at + 4, left - count, block + 1
    return queues


def key_entries(root, start):
    """[(hash, physical offset)] of one segment, sorted."""
    data, directory, _ = sealed(root / f"weir/keys/{start:020}", b"WEIRKEY2", start)
    found = []
    for at in range(0, len(directory), 16):
        run_at, count = struct.unpack_from(">QQ", directory, at)
        run = []
        for page in range(run_at, run_at + -(-count // 511) * 8192, 8192):
            end = page + 16 * min(511, count - len(run))
            if struct.unpack_from(">I", data, end) != (zlib.crc32(data[page:end]),):
                raise Damage(f"key page at {page} of segment {start}: wrong checksum")
            run += [struct.unpack_from(">QQ", data, at) for at in range(page, end, 16)]
        if run != sorted(run):
            raise Damage(f"a run of the keys of segment {start} is not sorted")
        found += run
    return sorted(found)


def mix(value, word):
    product = (value ^ word) * 0xE7037ED1A0B428DB
    return (product & WORD) ^ (product >> 64)


def fold(seed, data):
    value = seed ^ (len(data) * 0xA0761D6478BD642F & WORD)
    whole = len(data) // 8 * 8
    for at in range(0, whole, 8):
        value = mix(value, int.from_bytes(data[at:at + 8], "little"))
    last = int.from_bytes(data[whole:], "little")
    return mix(mix(value, last) | 1, 0x58965CC75374CC3F)


def key_hash(topic, key):
    return fold(fold(0x9E3779B97F4A7C15, topic.encode()), key.encode())


def keys_of(found):
    """The keys under which a record can be found."""
    for name, value in found["properties"]:
        if name == "UNIQ_KEY":
            yield value
        elif name == "KEYS":
            yield from (key for key in value.split(" ") if key)


def tag_hash(found):
    """Java's String.hashCode of the tag."""
    value = 0
    for name, tag in found["properties"]:
        if name == "TAGS":
            value = 0
            for unit in struct.unpack(f">{len(tag.encode('utf-16-be')) // 2}H", tag.encode("utf-16-be")):
                value = (31 * value + unit) & 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value
