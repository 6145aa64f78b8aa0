"""The remoting protocol as far as a crash test needs it: JSON headers over plain sockets."""
import json
import socket
import struct

SEND, PULL, QUERY_OFFSET, UPDATE_OFFSET = 310, 11, 14, 15
CREATE_TOPIC, TOPICS, CREATE_GROUP, GROUPS, MAX_OFFSET, MIN_OFFSET = 17, 21, 200, 201, 30, 31
DELETE_EXPIRED_LOG = 329
FOUND, NOT_FOUND = 0, 19
V1, V2 = 0xDAA320A7, 0xDAA320AB


class Gone(Exception):
    """The broker closed the connection, or does not answer any more."""


class Link:
    """One connection. Requests may be sent ahead; answers are told apart by their opaque."""

    def __init__(self, address, timeout=5):
        host, port = address.rsplit(":", 1)
        self.received = bytearray()
        self.opaque = 0
        try:
            self.socket = socket.create_connection((host, int(port)), timeout)
        except OSError as error:
            raise Gone(str(error)) from error
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self):
        self.socket.close()

    def frame(self, code, fields, body=b""):
        """A request as bytes; its opaque is `self.opaque` afterwards."""
        self.opaque += 1
        header = json.dumps(
            {"code": code, "language": "JAVA", "version": 513, "opaque": self.opaque, "flag": 0,
             "serializeTypeCurrentRPC": "JSON", "extFields": fields}).encode()
        return struct.pack(">II", 4 + len(header) + len(body), len(header)) + header + body

    def send(self, frames):
        try:
            self.socket.sendall(frames)
        except OSError as error:
            raise Gone(str(error)) from error

    def answer(self):
        """The next answer: its header as a dict, and its body."""
        total = struct.unpack(">I", self._take(4))[0]
        frame = self._take(total)
        length = struct.unpack(">I", frame[:4])[0] & 0xFFFFFF
        return json.loads(frame[4:4 + length]), frame[4 + length:]

    def call(self, code, fields, body=b""):
        self.send(self.frame(code, fields, body))
        header, body = self.answer()
        assert header["opaque"] == self.opaque, header
        return header, body

    def _take(self, length):
        while len(self.received) < length:
            try:
                more = self.socket.recv(256 << 10)
            except OSError as error:
                raise Gone(str(error)) from error
            if not more:
                raise Gone("the connection was closed")
            self.received += more
        taken = bytes(self.received[:length])
        del self.received[:length]
        return taken


def create_topic(link, topic, queues):
    fields = {"topic": topic, "defaultTopic": "TBW102", "readQueueNums": str(queues),
              "writeQueueNums": str(queues), "perm": "6", "topicFilterType": "SINGLE_TAG",
              "topicSysFlag": "0", "order": "false"}
    return link.call(CREATE_TOPIC, fields)[0]


def create_group(link, group):
    return link.call(CREATE_GROUP, {}, json.dumps({"groupName": group}).encode())[0]


def records(stored):
    """The records of a pull's answer: queue offset, position in the log, body, topic, properties."""
    at = 0
    while at < len(stored):
        size, magic = struct.unpack_from(">II", stored, at)
        if magic not in (V1, V2):
            raise ValueError(f"no record at {at}: magic {magic:#x}")
        queue_offset, position, flags = struct.unpack_from(">qqI", stored, at + 20)
        next_ = at + 48 + (20 if flags & 0x10 else 8) + 8 + (20 if flags & 0x20 else 8) + 12
        length, = struct.unpack_from(">I", stored, next_)
        body = stored[next_ + 4:next_ + 4 + length]
        next_ += 4 + length
        length, = struct.unpack_from(">B" if magic == V1 else ">H", stored, next_)
        next_ += 1 if magic == V1 else 2
        topic = stored[next_:next_ + length].decode()
        next_ += length
        length, = struct.unpack_from(">H", stored, next_)
        properties = stored[next_ + 2:next_ + 2 + length]
        yield queue_offset, position, body, topic, properties
        at += size
