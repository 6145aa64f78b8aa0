"""One message by hand: when does a broker take the first one, and how long is its log."""

import json
import socket
import time

SEND_MESSAGE = 10
PATIENCE = 5


def log_position(address):
    """Sends one message and answers the byte of the log at which it begins."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as stream:
        return send_one(stream)


def wait_for_send(address, began, patience=180):
    """Seconds from `began` until a broker has accepted a message; asks again and again."""
    while time.monotonic() - began < patience:
        try:
            log_position(address)
            return time.monotonic() - began
        except OSError:
            time.sleep(0.002)
    raise OSError(f"no message was accepted in {patience} s")


def send_one(stream, topic="bench-probe"):
    answer = call(stream, SEND_MESSAGE, {
        "producerGroup": "weir-bench-probe", "topic": topic, "defaultTopic": "TBW102",
        "defaultTopicQueueNums": "1", "queueId": "0", "sysFlag": "0",
        "bornTimestamp": str(int(time.time() * 1000)), "flag": "0", "properties": "",
        "reconsumeTimes": "0", "unitMode": "false", "batch": "false",
    }, b"probe")
    # A message id ends with the position in the log, as 16 hexadecimal digits.
    return int(answer["extFields"]["msgId"][-16:], 16)


def ask(address, code):
    """A request without fields, on a connection of its own."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as stream:
        call(stream, code, {}, b"")


def call(stream, code, fields, body):
    """Answers the header of the answer, which has to be a success."""
    header = json.dumps({
        "code": code, "language": "JAVA", "version": 475, "opaque": 1, "flag": 0,
        "serializeTypeCurrentRPC": "JSON", "extFields": fields,
    }).encode()
    stream.sendall((4 + len(header) + len(body)).to_bytes(4, "big") + len(header).to_bytes(4, "big") + header + body)
    frame = read_exactly(stream, int.from_bytes(read_exactly(stream, 4), "big"))
    # The top byte of the header's length says how it is written; 0 is JSON.
    length = int.from_bytes(frame[1:4], "big")
    answer = json.loads(frame[4:4 + length])
    if answer["code"] != 0:
        raise OSError(f"request {code} was answered with {answer['code']}: {answer.get('remark')}")
    return answer


def read_exactly(stream, count):
    data = b""
    while len(data) < count:
        more = stream.recv(count - len(data))
        if not more:
            raise OSError("connection closed")
        data += more
    return data
