#!/usr/bin/env python3
"""Asks a broker and a name server a list of edge requests over a raw socket and keeps what they answer.

  ask.py SET --ns HOST:PORT [--broker HOST:PORT] --out answers.json      record (replaces the answers of SET)
  ask.py SET --ns HOST:PORT [--broker HOST:PORT] --compare answers.json  ask again and show where the answers differ

SET: ns-empty  a name server without brokers
     auto      a fresh broker with autoCreateTopicEnable, autoCreateSubscriptionGroup and enablePropertyFilter on
     strict    a fresh broker with the three off
     trim      as auto, with mappedFileSizeCommitLog=65536: what is asked after the oldest segments went
"""
import argparse, json, re, socket, struct, sys, time, zlib

SETS = ["ns-empty", "auto", "strict", "trim"]
HIGH, LOW = 513, 399  # V5_5_0, V4_9_3
BORN = "1700000000000"


class Closed(Exception):
    pass


class Link:
    def __init__(self, addr):
        self.host, self.port = addr.rsplit(":", 1)
        self.sock, self.opaque = None, 0

    def open(self):
        if self.sock is None:
            self.sock = socket.create_connection((self.host, int(self.port)), 5)

    def close(self):
        if self.sock:
            self.sock.close()
            self.sock = None

    def read(self, n):
        b = b""
        while len(b) < n:
            c = self.sock.recv(n - len(b))
            if not c:
                raise Closed()
            b += c
        return b

    def call(self, code, ext=None, body=b"", version=HIGH, timeout=8, flag=0):
        self.open()
        self.opaque += 1
        h = {"code": code, "language": "JAVA", "version": version, "opaque": self.opaque, "flag": flag, "serializeTypeCurrentRPC": "JSON"}
        if ext is not None:
            h["extFields"] = ext
        h = json.dumps(h, ensure_ascii=False).encode()
        self.sock.settimeout(timeout)
        try:
            self.sock.sendall(struct.pack(">II", 4 + len(h) + len(body), len(h)) + h + body)
            end = time.time() + timeout
            while time.time() < end:
                total, = struct.unpack(">I", self.read(4))
                f = self.read(total)
                n, = struct.unpack(">I", f[:4])
                r = json.loads(f[4:4 + (n & 0xFFFFFF)].decode())
                if r["flag"] & 1 and r["opaque"] == self.opaque:
                    r["body"] = f[4 + (n & 0xFFFFFF):]
                    return r
            return None
        except socket.timeout:
            self.close()
            return None
        except (Closed, ConnectionError):
            self.close()
            return "closed"


def text(b):
    try:
        s = b.decode()
        return s if all(c >= " " or c in "\n\t" for c in s) else None
    except UnicodeDecodeError:
        return None


def stored(b):
    """What a body of stored messages holds: topic, queue, queue offset, place in the log, size; None for another body."""
    out, at = [], 0
    while at + 91 <= len(b):
        size, magic, _, queue, _, offset, place, flags = struct.unpack(">IIIiiqqI", b[at:at + 40])
        if magic not in (0xDAA320A7, 0xDAA320AB) or at + size > len(b):
            return None
        p = at + 48 + (20 if flags & 0x10 else 8) + 8 + (20 if flags & 0x20 else 8) + 12
        p += 4 + struct.unpack(">I", b[p:p + 4])[0]
        n = b[p] if magic == 0xDAA320A7 else struct.unpack(">H", b[p:p + 2])[0]
        p += 1 if magic == 0xDAA320A7 else 2
        out.append({"topic": b[p:p + n].decode(), "queueId": queue, "queueOffset": offset, "physicalOffset": place, "size": size})
        at += size
    return out if out and at == len(b) else None


class Run:
    def __init__(self, name, ns, broker):
        self.set, self.ns, self.broker, self.answers = name, ns, broker, []

    def ask(self, name, to, code, ext=None, body=b"", version=HIGH, keep="body", note=None):
        if isinstance(body, (dict, list)):
            body = json.dumps(body, ensure_ascii=False)
        if isinstance(body, str):
            body = body.encode()
        link = self.ns if to == "ns" else self.broker
        r = link.call(code, ext, body, version)
        req = {"to": "name server" if to == "ns" else "broker", "code": code}
        if version != HIGH:
            req["version"] = version
        if ext is not None:
            req["ext"] = {k: v if len(v) <= 300 else {"length": len(v), "starts": v[:20]} for k, v in ext.items()}
        if body:
            t = text(body)
            req["body"] = t if t is not None and len(t) <= 2000 else {"size": len(body), "hex": body.hex()} if len(body) <= 600 else {"size": len(body)}
        if r is None or r == "closed":
            resp = {"none": "no answer within 8 s" if r is None else "connection closed"}
        else:
            resp = {"code": r["code"], "flag": r["flag"], "remark": r.get("remark"), "ext": r.get("extFields")}
            b = r["body"]
            if b:
                t = text(b)
                if t is not None:
                    t = re.sub(r'(/[^\s"/,:]+)+/commitlog', "<storePathCommitLog>", t)
                if keep == "keys":
                    resp["bodyKeys"] = sorted(keys(t))
                elif t is not None:
                    resp["body"] = t
                elif stored(b):
                    resp["messages"], resp["bodySize"] = stored(b), len(b)
                else:
                    resp["bodyHex"], resp["bodySize"] = b[:2000].hex(), len(b)
            else:
                resp["body"] = None
        a = {"set": self.set, "name": name, "request": req, "response": resp}
        if note:
            a["note"] = note
        self.answers.append(a)
        return r

    def quiet(self, to, code, ext=None, body=b""):
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        if isinstance(body, str):
            body = body.encode()
        return (self.ns if to == "ns" else self.broker).call(code, ext, body)


def keys(t):
    try:
        d = json.loads(re.sub(r'([{,])(\d+):', r'\1"\2":', t))
        return d.get("table", d).keys()
    except ValueError:
        return [l.split("=", 1)[0] for l in t.splitlines() if "=" in l]


def send1(topic, **o):
    e = {"producerGroup": "p-ask", "topic": topic, "defaultTopic": "TBW102", "defaultTopicQueueNums": "4", "queueId": "0", "sysFlag": "0",
         "bornTimestamp": BORN, "flag": "0", "properties": "WAIT\u0001true\u0002", "reconsumeTimes": "0", "unitMode": "false", "batch": "false"}
    e.update(o)
    return {k: v for k, v in e.items() if v is not None}


LETTERS = dict(zip("producerGroup topic defaultTopic defaultTopicQueueNums queueId sysFlag bornTimestamp flag properties reconsumeTimes unitMode maxReconsumeTimes batch".split(), "abcdefghijklm"))


def send2(topic, **o):
    return {LETTERS[k]: v for k, v in send1(topic, **o).items()}


def pull(topic, group="AskGroup", offset=0, **o):
    e = {"consumerGroup": group, "topic": topic, "queueId": "0", "queueOffset": str(offset), "maxMsgNums": "32", "sysFlag": "4", "commitOffset": "0",
         "suspendTimeoutMillis": "1000", "subscription": "*", "subVersion": "1", "expressionType": "TAG"}
    e.update(o)
    return {k: v for k, v in e.items() if v is not None}


def topic(name, **o):
    e = {"topic": name, "defaultTopic": "TBW102", "readQueueNums": "4", "writeQueueNums": "4", "perm": "6", "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false"}
    e.update(o)
    return {k: v for k, v in e.items() if v is not None}


def heartbeat(client, groups=(), producers=(), model="CLUSTERING", exprs=None):
    return {"clientID": client, "producerDataSet": [{"groupName": p} for p in producers], "consumerDataSet": [
        {"groupName": g, "consumeType": "CONSUME_PASSIVELY", "messageModel": model, "consumeFromWhere": "CONSUME_FROM_FIRST_OFFSET", "unitMode": False,
         "subscriptionDataSet": [{"topic": t, "subString": s, "expressionType": x, "subVersion": 5, "tagsSet": [], "codeSet": [], "classFilterMode": False}
                                 for t, s, x in subs]} for g, subs in groups]}


def group(name, **o):
    g = {"groupName": name, "consumeEnable": True, "consumeFromMinEnable": True, "consumeBroadcastEnable": True, "retryQueueNums": 1, "retryMaxTimes": 16,
         "brokerId": 0, "whichBrokerWhenConsumeSlowly": 1, "notifyConsumerIdsChangedEnable": True}
    g.update(o)
    return g


def batch(*bodies):
    out = b""
    for b in bodies:
        p = b"WAIT\x01true\x02"
        out += struct.pack(">IIIII", 22 + len(b) + len(p), 0, 0, 0, len(b)) + b + struct.pack(">H", len(p)) + p
    return out


def check(sub, expr, group="AskGroup"):
    return {"clientId": "c@1", "group": group, "subscriptionData": {"topic": "AskData", "subString": sub, "expressionType": expr, "subVersion": 5, "tagsSet": [], "codeSet": [], "classFilterMode": False}}


def names(r, code, make, kind):
    """Illegal and reserved names through one request."""
    for n, v in {"empty": "", "blank": "  ", "space_inside": "bad name", "slash": "a/b", "unicode": "主题", "dot": "a.b", "percent": "a%b", "pipe": "a|b", "dash_underscore": "a-b_c",
                 "len_127": kind + "x" * (127 - len(kind)), "len_128": kind + "x" * (128 - len(kind)), "len_255": kind + "x" * (255 - len(kind)), "len_256": kind + "x" * (256 - len(kind))}.items():
        yield n, make(v)


def setup(r):
    b = "broker"
    r.quiet(b, 17, topic("AskEmpty"))
    r.quiet(b, 17, topic("AskData", readQueueNums="2", writeQueueNums="2"))
    r.quiet(b, 17, topic("AskReadOnly", perm="4"))
    r.quiet(b, 17, topic("AskWriteOnly", perm="2"))
    r.quiet(b, 17, topic("AskNone", perm="1"))
    r.quiet(b, 17, topic("AskNarrow", readQueueNums="1", writeQueueNums="4"))
    r.quiet(b, 17, topic("AskMissing"))
    r.quiet(b, 17, topic("AskOrdered", order="true"))
    r.quiet(b, 17, topic("AskFifo", attributes="+message.type=FIFO"))
    for g in (group("AskGroup"), group("AskOff", consumeEnable=False), group("AskNoBroadcast", consumeBroadcastEnable=False), group("AskFresh"), group("AskOther")):
        r.quiet(b, 200, {}, g)
    for i in range(10):
        x = r.quiet(b, 310, send2("AskData", properties=f"TAGS\u0001Tag{'AB'[i % 2]}\u0002KEYS\u0001key{i}\u0002UNIQ_KEY\u00010A010203000718B4AAC200001234{i:04X}\u0002"), b"body-%d" % i)
        assert x["code"] == 0, x
    time.sleep(1)


def register(r):
    b = "broker"
    r.quiet(b, 34, {}, heartbeat("c@1", [("AskGroup", [("AskData", "*", "TAG"), ("AskEmpty", "*", "TAG"), ("AskWriteOnly", "*", "TAG")]), ("AskOff", [("AskData", "*", "TAG")]),
                                         ("AskOther", [("AskData", "TagA", "TAG")])], ["p-ask"]))
    r.quiet(b, 34, {}, heartbeat("c@2", [("AskNoBroadcast", [("AskData", "*", "TAG")])], model="BROADCASTING"))


def sends(r):
    b = "broker"
    ask = lambda n, e, body=b"x", code=310, **k: r.ask("send." + n, b, code, e, body, **k)
    strict = r.set == "strict"
    ask("unknown_topic", send2("AskNew1"))
    ask("unknown_topic_v1", send1("AskNew2"), code=10)
    ask("unknown_topic_other_default_topic", send2("AskNew3", defaultTopic="NoSuchDefault"))
    ask("unknown_topic_default_topic_is_ordinary", send2("AskNew4", defaultTopic="AskData"))
    r.ask("send.unknown_topic_config_made", b, 351, {"topic": "AskNew1"})
    ask("unknown_topic_queue_nums_100", send2("AskNew5", defaultTopicQueueNums="100"))
    r.ask("send.unknown_topic_queue_nums_100_config_made", b, 351, {"topic": "AskNew5"})
    ask("unknown_topic_queue_nums_0", send2("AskNew6", defaultTopicQueueNums="0"))
    ask("unknown_topic_queue_id_9", send2("AskNew7", queueId="9"))
    ask("retry_topic_unknown_group", send2("%RETRY%NoSuchGroup"))
    ask("retry_topic_known_group", send2("%RETRY%AskGroup", reconsumeTimes="1"))
    ask("retry_topic_beyond_max_reconsume", send2("%RETRY%AskGroup", reconsumeTimes="20"))
    ask("dlq_topic", send2("%DLQ%AskGroup"))
    if strict:
        return
    ask("ok", send2("AskData", queueId="1"))
    ask("perm_read_only", send2("AskReadOnly"))
    ask("perm_none", send2("AskNone"))
    for n, e in names(r, 310, send2, "S"):
        ask("name_" + n, e)
    for t in ("TBW102", "SCHEDULE_TOPIC_XXXX", "RMQ_SYS_TRANS_HALF_TOPIC", "RMQ_SYS_TRANS_OP_HALF_TOPIC", "SELF_TEST_TOPIC", "BenchmarkTest", "OFFSET_MOVED_EVENT",
              "rmq_sys_wheel_timer", "DefaultCluster", "broker-a", "RMQ_SYS_TRACE_TOPIC"):
        ask("system_topic." + t, send2(t))
    ask("queue_id_minus_1", send2("AskEmpty2", queueId="-1"))
    ask("queue_id_beyond", send2("AskData", queueId="2"))
    ask("queue_id_beyond_read_but_below_write", send2("AskNarrow", queueId="3"))
    ask("queue_id_beyond_both", send2("AskNarrow", queueId="4"))
    ask("queue_id_not_a_number", send2("AskData", queueId="abc"))
    ask("body_empty", send2("AskData", queueId="1"), b"")
    ask("body_4MiB", send2("AskData", queueId="1"), b"x" * (4 << 20))
    ask("body_4MiB_plus_1", send2("AskData", queueId="1"), b"x" * ((4 << 20) + 1))
    ask("body_4MiB_plus_2048", send2("AskData", queueId="1"), b"x" * ((4 << 20) + 2048))
    ask("body_15MiB", send2("AskData", queueId="1"), b"x" * (15 << 20))
    ask("body_17MiB_frame_too_big", send2("AskData", queueId="1"), b"x" * (17 << 20))
    for n in (32767, 32768, 40000):
        ask("properties_%d" % n, send2("AskData", queueId="1", properties="p\u0001" + "v" * (n - 3) + "\u0002"))
    ask("properties_32000", send2("AskData", queueId="1", properties="p\u0001" + "v" * 31997 + "\u0002"))
    ask("properties_32700", send2("AskData", queueId="1", properties="p\u0001" + "v" * 32697 + "\u0002"))
    ask("properties_absent", send2("AskData", queueId="1", properties=None))
    ask("properties_garbage", send2("AskData", queueId="1", properties="not a property string"))
    for f in ("producerGroup", "topic", "queueId", "sysFlag", "bornTimestamp", "flag", "defaultTopic"):
        ask("missing_" + f, {k: v for k, v in send2("AskMissing").items() if k != LETTERS[f]})
    ask("missing_topic_v1", {k: v for k, v in send1("AskMissing").items() if k != "topic"}, code=10)
    ask("no_ext_fields", None)
    ask("delay_level_99", send2("AskEmpty", properties="DELAY\u000199\u0002"))
    ask("delay_level_negative", send2("AskEmpty", properties="DELAY\u0001-1\u0002"))
    ask("delay_level_text", send2("AskEmpty", properties="DELAY\u0001x\u0002"))
    ask("timer_too_far", send2("AskEmpty", properties="TIMER_DELAY_SEC\u0001864000\u0002"))
    ask("timer_negative", send2("AskEmpty", properties="TIMER_DELAY_SEC\u0001-5\u0002"))
    ask("timer_text", send2("AskEmpty", properties="TIMER_DELAY_SEC\u0001x\u0002"))
    ask("timer_and_delay_level", send2("AskEmpty", properties="TIMER_DELAY_SEC\u00011\u0002DELAY\u00011\u0002"))
    ask("timer_deliver_in_the_past", send2("AskEmpty", properties="TIMER_DELIVER_MS\u00011000\u0002"))
    ask("prepared", send2("AskEmpty", sysFlag="4", properties="TRAN_MSG\u0001true\u0002PGROUP\u0001p-ask\u0002"))
    ask("prepared_with_delay", send2("AskEmpty", sysFlag="4", properties="TRAN_MSG\u0001true\u0002PGROUP\u0001p-ask\u0002DELAY\u00013\u0002"))
    ask("sys_flag_commit_without_prepare", send2("AskEmpty", sysFlag="8"))
    ask("inner_multi_dispatch", send2("AskEmpty", properties="INNER_MULTI_DISPATCH\u0001%LMQ%one,%LMQ%two\u0002"))
    ask("batch", send2("AskEmpty", batch="true"), batch(b"one", b"two"), 320)
    ask("batch_with_code_310", send2("AskEmpty", batch="true"), batch(b"one", b"two"))
    ask("batch_code_320_flag_false", send2("AskEmpty", batch="false"), batch(b"one", b"two"), 320)
    ask("batch_one", send2("AskEmpty", batch="true"), batch(b"one"), 320)
    ask("batch_empty_body", send2("AskEmpty", batch="true"), b"", 320)
    ask("batch_garbage", send2("AskEmpty", batch="true"), b"garbage", 320)
    ask("batch_garbage_long", send2("AskEmpty", batch="true"), b"g" * 100, 320)
    ask("batch_truncated", send2("AskEmpty", batch="true"), batch(b"one", b"two")[:-3], 320)
    ask("batch_retry_topic", send2("%RETRY%AskGroup", batch="true"), batch(b"one"), 320)
    ask("batch_delay", send2("AskEmpty", batch="true", properties="DELAY\u00013\u0002"), batch(b"one"), 320)
    ask("batch_prepared", send2("AskEmpty", batch="true", sysFlag="4", properties="TRAN_MSG\u0001true\u0002"), batch(b"one"), 320)
    ask("batch_over_4MiB", send2("AskEmpty", batch="true"), batch(*[b"x" * (1 << 20)] * 5), 320)
    ask("batch_topic_127", send2("S" * 127, batch="true"), batch(b"one"), 320)
    ask("reply_unknown_client", send1("DefaultCluster_REPLY_TOPIC", properties="CORRELATION_ID\u0001c1\u0002REPLY_TO_CLIENT\u0001nobody@1\u0002MSG_TYPE\u0001reply\u0002CLUSTER\u0001DefaultCluster\u0002"), code=324)
    ask("reply_without_client", send1("DefaultCluster_REPLY_TOPIC"), code=324)
    ask("fifo_topic_without_sharding_key", send2("AskFifo"))


def pulls(r):
    b = "broker"
    ask = lambda n, e, **k: r.ask("pull." + n, b, 11, e, **k)
    register(r)
    ask("unknown_topic", pull("NoSuchTopic"))
    ask("unknown_group", pull("AskData", "NoSuchGroup1"))
    ask("unknown_group_without_subscription_in_header", pull("AskData", "NoSuchGroup2", sysFlag="0"))
    r.ask("pull.unknown_group_config_made", b, 352, {"group": "NoSuchGroup1"})
    if r.set == "strict":
        r.ask("pop.unknown_group", b, 200050, {"consumerGroup": "NoSuchGroup9", "topic": "AskData", "queueId": "-1", "maxMsgNums": "1", "invisibleTime": "60000", "pollTime": "0", "bornTime": str(int(time.time() * 1000)), "initMode": "0"})
        ask("sql_in_header", pull("AskData", subscription="a > 5", expressionType="SQL92"))
        ask("sql_bad_in_header", pull("AskData", subscription="a >", expressionType="SQL92"))
        return
    ask("found", pull("AskData", maxMsgNums="1"))
    ask("found_all_tag_b", pull("AskData", subscription="TagB"))
    ask("no_tag_matches", pull("AskData", subscription="TagNone"))
    ask("empty_queue_no_suspend", pull("AskEmpty", queueId="3"))
    ask("empty_queue_offset_5", pull("AskEmpty", offset=5, queueId="3"))
    ask("empty_queue_offset_negative", pull("AskEmpty", offset=-1, queueId="3"))
    ask("empty_queue_suspend_1s", pull("AskEmpty", queueId="3", sysFlag="6"))
    ask("offset_is_max", pull("AskData", offset=10))
    ask("offset_max_plus_1", pull("AskData", offset=11))
    ask("offset_far_beyond", pull("AskData", offset=1000000))
    ask("offset_long_max", pull("AskData", offset=9223372036854775807))
    ask("offset_negative", pull("AskData", offset=-1))
    ask("offset_negative_10", pull("AskData", offset=-10))
    ask("offset_beyond_suspend", pull("AskData", offset=11, sysFlag="6"))
    ask("max_msg_nums_0", pull("AskData", maxMsgNums="0"))
    ask("max_msg_nums_negative", pull("AskData", maxMsgNums="-1"))
    ask("queue_id_beyond", pull("AskData", queueId="2"))
    ask("queue_id_negative", pull("AskData", queueId="-1"))
    ask("queue_id_write_only_queue", pull("AskNarrow", queueId="2"))
    ask("perm_write_only", pull("AskWriteOnly"))
    ask("perm_none", pull("AskNone"))
    ask("perm_read_only", pull("AskReadOnly"))
    ask("group_consume_disabled", pull("AskData", "AskOff"))
    ask("group_broadcast_disabled", pull("AskData", "AskNoBroadcast", sysFlag="0"))
    ask("group_broadcast_disabled_subscription_in_header", pull("AskData", "AskNoBroadcast"))
    ask("registered_without_subscription_in_header", pull("AskData", sysFlag="0", subscription=None, subVersion="5"))
    ask("registered_version_older", pull("AskData", sysFlag="0", subscription=None, subVersion="4"))
    ask("registered_version_newer", pull("AskData", sysFlag="0", subscription=None, subVersion="6"))
    ask("registered_but_other_topic", pull("AskReadOnly", sysFlag="0", subscription=None))
    ask("group_not_registered", pull("AskData", "AskFresh", sysFlag="0", subscription=None))
    ask("sql_in_header", pull("AskData", subscription="a > 5", expressionType="SQL92"))
    ask("sql_bad_in_header", pull("AskData", subscription="a >", expressionType="SQL92"))
    ask("unknown_expression_type", pull("AskData", subscription="x", expressionType="NOPE"))
    ask("subscription_empty", pull("AskData", subscription=""))
    ask("subscription_absent_with_flag", pull("AskData", subscription=None))
    ask("subscription_only_bars", pull("AskData", subscription="||"))
    ask("retry_topic_never_made", pull("%RETRY%AskFresh", "AskFresh"))
    for f in ("consumerGroup", "topic", "queueId", "queueOffset", "maxMsgNums", "sysFlag", "commitOffset", "suspendTimeoutMillis", "subVersion"):
        ask("missing_" + f, {k: v for k, v in pull("AskData").items() if k != f})
    ask("offset_not_a_number", pull("AskData", queueOffset="x"))
    ask("commit_offset_beyond", pull("AskData", maxMsgNums="1", sysFlag="5", commitOffset="99999", group="AskOther"))
    r.ask("pull.commit_offset_beyond_then_query", b, 14, {"consumerGroup": "AskOther", "topic": "AskData", "queueId": "0"})
    r.ask("pull.lite", b, 361, pull("AskData", maxMsgNums="1", sysFlag="20"))
    p = {"consumerGroup": "AskGroup", "topic": "AskData", "queueId": "-1", "maxMsgNums": "1", "invisibleTime": "60000", "pollTime": "0", "bornTime": str(int(time.time() * 1000)), "initMode": "0"}
    pop = lambda n, **o: r.ask("pop." + n, b, 200050, {k: v for k, v in {**p, **o}.items() if v is not None})
    pop("unknown_topic", topic="NoSuchTopic")
    pop("unknown_group", consumerGroup="NoSuchGroup9")
    pop("max_msg_nums_33", maxMsgNums="33")
    pop("queue_id_beyond", queueId="9")
    pop("born_time_old", bornTime=BORN)
    pop("group_disabled", consumerGroup="AskOff")
    pop("perm_write_only", topic="AskWriteOnly")
    pop("empty_queue", topic="AskEmpty", queueId="3")
    pop("bad_sql", exp="a >", expType="SQL92")
    pop("missing_invisible_time", invisibleTime=None)
    a = {"consumerGroup": "AskGroup", "topic": "AskData", "queueId": "0", "extraInfo": "0 1700000000000 60000 0 0 broker-a 0", "offset": "0"}
    r.ask("ack.unknown_topic", b, 200051, {**a, "topic": "NoSuchTopic"})
    r.ask("ack.queue_id_beyond", b, 200051, {**a, "queueId": "9"})
    r.ask("ack.offset_beyond", b, 200051, {**a, "offset": "99999"})
    r.ask("ack.extra_info_garbage", b, 200051, {**a, "extraInfo": "garbage"})
    r.ask("ack.extra_info_empty", b, 200051, {**a, "extraInfo": ""})
    c = {**a, "invisibleTime": "30000"}
    r.ask("change_invisible.unknown_topic", b, 200053, {**c, "topic": "NoSuchTopic"})
    r.ask("change_invisible.queue_id_beyond", b, 200053, {**c, "queueId": "9"})
    r.ask("change_invisible.offset_beyond", b, 200053, {**c, "offset": "99999"})
    n = {"consumerGroup": "AskGroup", "topic": "AskData", "queueId": "0", "pollTime": "0", "bornTime": str(int(time.time() * 1000))}
    r.ask("notification.unknown_topic", b, 200054, {**n, "topic": "NoSuchTopic"})
    r.ask("notification.unknown_group", b, 200054, {**n, "consumerGroup": "NoSuchGroup8"})
    r.ask("notification.ok", b, 200054, n)
    r.ask("polling_info.ok", b, 200055, {"consumerGroup": "AskGroup", "topic": "AskData", "queueId": "0"})
    r.ask("polling_info.unknown_topic", b, 200055, {"consumerGroup": "AskGroup", "topic": "NoSuchTopic", "queueId": "0"})
    r.ask("peek.unknown_topic", b, 200052, {"consumerGroup": "AskGroup", "topic": "NoSuchTopic", "queueId": "0", "maxMsgNums": "1"})


def offsets(r):
    b = "broker"
    q = lambda n, **o: r.ask("query_consumer_offset." + n, b, 14, {k: v for k, v in {"consumerGroup": "AskFresh", "topic": "AskData", "queueId": "0", **o}.items() if v is not None})
    if r.set == "strict":
        q("unknown_group", consumerGroup="NoSuchGroup3")
        r.ask("update_consumer_offset.unknown_group", b, 15, {"consumerGroup": "NoSuchGroup3", "topic": "AskData", "queueId": "0", "commitOffset": "1"})
        return
    for z in (None, "true", "false"):
        s = "_set_zero_" + (z or "absent")
        q("never_committed_queue_with_messages_from_0" + s, setZeroIfNotFound=z)
        q("never_committed_empty_queue" + s, topic="AskEmpty", queueId="3", setZeroIfNotFound=z)
        q("unknown_topic" + s, topic="NoSuchTopic", setZeroIfNotFound=z)
        q("queue_id_beyond" + s, queueId="99", setZeroIfNotFound=z)
        q("unknown_group" + s, consumerGroup="NoSuchGroup3", setZeroIfNotFound=z)
    q("queue_id_negative", queueId="-1")
    q("missing_queue_id", queueId=None)
    q("missing_group", consumerGroup=None)
    u = lambda n, **o: r.ask("update_consumer_offset." + n, b, 15, {k: v for k, v in {"consumerGroup": "AskFresh", "topic": "AskData", "queueId": "0", "commitOffset": "3", **o}.items() if v is not None})
    u("unknown_topic", topic="NoSuchTopic")
    u("unknown_group", consumerGroup="NoSuchGroup4")
    u("queue_id_beyond", queueId="99")
    q("after_update_of_queue_id_beyond", queueId="99")
    u("negative", commitOffset="-5", queueId="1")
    q("after_update_negative", queueId="1")
    u("ok")
    q("after_update")
    u("smaller", commitOffset="1")
    q("after_smaller")
    u("beyond_max", commitOffset="12345")
    q("after_beyond_max")
    u("missing_commit_offset", commitOffset=None)
    u("missing_queue_id", queueId=None)
    for n, code, extra in (("max_offset", 30, {}), ("min_offset", 31, {}), ("search_offset", 29, {"timestamp": "0"}), ("earliest_msg_storetime", 32, {})):
        ask = lambda s, t, i, **o: r.ask(n + "." + s, b, code, {k: v for k, v in {"topic": t, "queueId": i, **extra, **o}.items() if v is not None})
        ask("ok", "AskData", "0")
        ask("unknown_topic", "NoSuchTopic", "0")
        ask("queue_id_beyond", "AskData", "99")
        ask("queue_id_negative", "AskData", "-1")
        ask("empty_queue", "AskEmpty", "3")
        ask("missing_topic", None, "0")
        ask("missing_queue_id", "AskData", None)
        ask("unknown_field", "AskData", "0", unknownField="x")
    for t in ("-1", "0", "9999999999999"):
        for bt in (None, "LOWER", "UPPER", "lower", "NOPE"):
            r.ask("search_offset.time_%s_%s" % (t, bt or "absent"), b, 29, {"topic": "AskData", "queueId": "0", "timestamp": t, **({"boundaryType": bt} if bt else {})})
    r.ask("search_offset.empty_queue_future", b, 29, {"topic": "AskEmpty", "queueId": "3", "timestamp": "9999999999999"})
    r.ask("search_offset.empty_queue_future_upper", b, 29, {"topic": "AskEmpty", "queueId": "3", "timestamp": "9999999999999", "boundaryType": "UPPER"})


def messages(r):
    b = "broker"
    if r.set == "strict":
        r.ask("send_back.unknown_group", b, 36, {"offset": "0", "group": "NoSuchGroup5", "delayLevel": "1", "originTopic": "AskData", "unitMode": "false"})
        r.ask("send_back.ok", b, 36, {"offset": "0", "group": "AskGroup", "delayLevel": "1", "originTopic": "AskData", "unitMode": "false"})
        return
    for o in ("-1", "3", "999999999999", "9223372036854775807"):
        r.ask("view_message.offset_" + o, b, 33, {"offset": o})
    r.ask("view_message.offset_0", b, 33, {"offset": "0"})
    r.ask("view_message.offset_missing", b, 33, {})
    r.ask("view_message.offset_not_a_number", b, 33, {"offset": "x"})
    q = {"topic": "AskData", "key": "key3", "maxNum": "32", "beginTimestamp": "0", "endTimestamp": "9999999999999"}
    r.ask("query_message.found", b, 12, q)
    r.ask("query_message.no_hits", b, 12, {**q, "key": "nokey"})
    r.ask("query_message.unknown_topic", b, 12, {**q, "topic": "NoSuchTopic"})
    r.ask("query_message.time_excludes", b, 12, {**q, "endTimestamp": "1000"})
    r.ask("query_message.max_num_0", b, 12, {**q, "maxNum": "0"})
    r.ask("query_message.unique_key", b, 12, {**q, "key": "0A010203000718B4AAC2000012340003", "_UNIQUE_KEY_QUERY": "true"})
    r.ask("query_message.unique_key_no_hits", b, 12, {**q, "key": "0A010203000718B4AAC20000123499FF", "_UNIQUE_KEY_QUERY": "true"})
    r.ask("query_message.missing_key", b, 12, {k: v for k, v in q.items() if k != "key"})
    s = {"offset": "0", "group": "AskGroup", "delayLevel": "1", "originTopic": "AskData", "originMsgId": "x", "unitMode": "false"}
    r.ask("send_back.unknown_group", b, 36, {**s, "group": "NoSuchGroup5"})
    r.ask("send_back.unknown_offset", b, 36, {**s, "offset": "999999999999"})
    r.ask("send_back.negative_offset", b, 36, {**s, "offset": "-1"})
    r.ask("send_back.delay_level_negative", b, 36, {**s, "delayLevel": "-1"})
    r.ask("send_back.delay_level_99", b, 36, {**s, "delayLevel": "99"})
    r.ask("send_back.group_consume_disabled", b, 36, {**s, "group": "AskOff"})
    r.ask("send_back.missing_offset", b, 36, {k: v for k, v in s.items() if k != "offset"})
    r.quiet(b, 200, {}, group("AskNoRetryQueue", retryQueueNums=0))
    r.ask("send_back.group_without_retry_queues", b, 36, {**s, "group": "AskNoRetryQueue"})
    e = {"producerGroup": "p-ask", "tranStateTableOffset": "0", "commitLogOffset": "0", "commitOrRollback": "8", "fromTransactionCheck": "false", "msgId": "x", "transactionId": "x"}
    r.ask("end_transaction.not_a_half_message", b, 37, e)
    r.ask("end_transaction.unknown_offset", b, 37, {**e, "commitLogOffset": "999999999999"})
    r.ask("end_transaction.rollback_unknown_offset", b, 37, {**e, "commitLogOffset": "999999999999", "commitOrRollback": "12"})
    r.ask("end_transaction.unknown_decision", b, 37, {**e, "commitOrRollback": "3"})
    r.ask("end_transaction.not_type", b, 37, {**e, "commitOrRollback": "0"})
    r.ask("end_transaction.missing_group", b, 37, {k: v for k, v in e.items() if k != "producerGroup"})
    r.ask("recall.disabled", b, 370, {"topic": "AskData", "recallHandle": "x", "producerGroup": "p-ask"})
    r.ask("resume_half.unknown", b, 323, {"msgId": "7F00000100002A9F0000000000000000", "topic": "AskData"})


def clients(r):
    b = "broker"
    strict = r.set == "strict"
    register(r)
    r.ask("check_client.tag", b, 46, {}, check("TagA", "TAG"))
    r.ask("check_client.sql", b, 46, {}, check("a > 5 AND b IS NOT NULL", "SQL92"))
    r.ask("check_client.sql_bad", b, 46, {}, check("a >", "SQL92"))
    r.ask("check_client.unknown_type", b, 46, {}, check("x", "NOPE"))
    r.ask("heartbeat.unknown_group", b, 34, {}, heartbeat("c@9", [("NoSuchGroup6", [("AskData", "*", "TAG")])]))
    r.ask("heartbeat.unknown_group_config_made", b, 352, {"group": "NoSuchGroup6"})
    r.ask("get_group_config.unknown", b, 352, {"group": "NoSuchGroup7"})
    r.ask("pull.sql_of_registered_client", b, 11, pull("AskData", subscription="a > 5", expressionType="SQL92"))
    if strict:
        return
    r.ask("check_client.empty_body", b, 46, {})
    r.ask("check_client.no_subscription", b, 46, {}, {"clientId": "c@1", "group": "AskGroup"})
    r.ask("check_client.sql_null_expression", b, 46, {}, check(None, "SQL92"))
    for n, x in (("empty", ""), ("equals", "a = b"), ("in_empty", "a IN ()"), ("between_reversed", "a BETWEEN 9 AND 1"), ("bare_property", "a"), ("string_greater", "a > 'x'"), ("like", "a LIKE '%x%'"),
                 ("contains", "a CONTAINS 'x'"), ("starts_with", "a STARTSWITH 'x'"), ("arithmetic", "a + 1 > 5"), ("always_true", "TRUE"), ("number_too_big", "a > 99999999999999999999"), ("double_quotes", 'a = "x"')):
        r.ask("check_client.sql_" + n, b, 46, {}, check(x, "SQL92"))
    r.ask("heartbeat.empty_body", b, 34, {})
    r.ask("heartbeat.empty_object", b, 34, {}, "{}")
    r.ask("heartbeat.garbage", b, 34, {}, "garbage")
    r.ask("heartbeat.ok", b, 34, {}, heartbeat("c@1", [("AskGroup", [("AskData", "*", "TAG")])], ["p-ask"]))
    r.ask("heartbeat.no_ext_fields", b, 34, None, heartbeat("c@1", [("AskGroup", [("AskData", "*", "TAG")])]))
    r.ask("heartbeat.fingerprint_only", b, 34, {}, {"clientID": "c@1", "producerDataSet": [], "consumerDataSet": [], "heartbeatFingerprint": 12345, "withoutSub": True})
    r.ask("heartbeat.v2_full", b, 34, {}, {**heartbeat("c@1", [("AskGroup", [("AskData", "*", "TAG")])]), "heartbeatFingerprint": 12345, "withoutSub": False})
    r.ask("heartbeat.v2_short_same_fingerprint", b, 34, {}, {**heartbeat("c@1", [("AskGroup", [])]), "heartbeatFingerprint": 12345, "withoutSub": True})
    r.ask("heartbeat.v2_short_other_fingerprint", b, 34, {}, {**heartbeat("c@1", [("AskGroup", [])]), "heartbeatFingerprint": 54321, "withoutSub": True})
    r.quiet(b, 34, {}, heartbeat("c@1", [("AskGroup", [("AskData", "*", "TAG")])], ["p-ask"]))
    r.ask("unregister.unknown_client", b, 35, {"clientID": "nobody@1", "producerGroup": "p-none", "consumerGroup": "g-none"})
    r.ask("unregister.no_groups", b, 35, {"clientID": "nobody@1"})
    r.ask("unregister.missing_client", b, 35, {"producerGroup": "p-none"})
    r.ask("consumer_list.unknown_group", b, 38, {"consumerGroup": "g-none"})
    r.ask("consumer_list.ok", b, 38, {"consumerGroup": "AskGroup"})
    r.ask("consumer_list.empty", b, 38, {"consumerGroup": ""})
    r.ask("consumer_list.missing", b, 38, {})
    mq = [{"topic": "AskData", "brokerName": "broker-a", "queueId": 0}]
    lk = {"consumerGroup": "AskGroup", "clientId": "c@1", "mqSet": mq}
    r.ask("lock.ok", b, 41, {}, lk)
    r.ask("lock.held_by_other", b, 41, {}, {**lk, "clientId": "c@2"})
    r.ask("lock.unknown_group", b, 41, {}, {**lk, "consumerGroup": "g-none"})
    r.ask("lock.unknown_topic_and_broker", b, 41, {}, {**lk, "mqSet": [{"topic": "NoSuchTopic", "brokerName": "broker-x", "queueId": 77}]})
    r.ask("lock.empty_set", b, 41, {}, {**lk, "mqSet": []})
    r.ask("lock.no_set", b, 41, {}, {"consumerGroup": "AskGroup", "clientId": "c@1"})
    r.ask("lock.empty_body", b, 41, {})
    r.ask("unlock.by_other", b, 42, {}, {**lk, "clientId": "c@2"})
    r.ask("unlock.ok", b, 42, {}, lk)
    r.ask("unlock.unknown_group", b, 42, {}, {**lk, "consumerGroup": "g-none"})
    r.ask("unlock.empty_body", b, 42, {})
    qa = {"topic": "AskData", "consumerGroup": "AskGroup", "clientId": "c@1", "strategyName": "AVG", "messageModel": "CLUSTERING"}
    r.ask("query_assignment.ok", b, 400, {}, qa)
    r.ask("query_assignment.unknown_topic", b, 400, {}, {**qa, "topic": "NoSuchTopic"})
    r.ask("query_assignment.unknown_group", b, 400, {}, {**qa, "consumerGroup": "g-none"})
    r.ask("query_assignment.unknown_client", b, 400, {}, {**qa, "clientId": "nobody@1"})
    r.ask("query_assignment.unknown_strategy", b, 400, {}, {**qa, "strategyName": "NOPE"})
    r.ask("query_assignment.broadcasting", b, 400, {}, {**qa, "messageModel": "BROADCASTING"})
    r.ask("query_assignment.empty_body", b, 400, {})
    r.ask("set_request_mode.retry_topic", b, 401, {}, {"topic": "%RETRY%AskGroup", "consumerGroup": "AskGroup", "mode": "POP", "popShareQueueNum": 0})
    r.ask("set_request_mode.ok", b, 401, {}, {"topic": "AskEmpty", "consumerGroup": "AskGroup", "mode": "POP", "popShareQueueNum": 0})
    r.ask("query_assignment.pop_mode", b, 400, {}, {**qa, "topic": "AskEmpty"})
    r.ask("get_all_request_modes", b, 402, {})
    for n, code, ext in (("consumer_connections", 203, {"consumerGroup": "g-none"}), ("producer_connections", 204, {"producerGroup": "p-none"}), ("who_consumes", 300, {"topic": "NoSuchTopic"}),
                         ("topics_of_consumer", 343, {"group": "g-none"}), ("subscription_of_consumer", 345, {"group": "g-none", "topic": "AskData"}),
                         ("consume_time_span", 303, {"topic": "NoSuchTopic", "group": "g-none"}), ("consume_stats", 208, {"consumerGroup": "g-none"}),
                         ("consumer_running_info", 307, {"consumerGroup": "AskGroup", "clientId": "nobody@1", "jstackEnable": "false"}),
                         ("consume_directly", 309, {"consumerGroup": "AskGroup", "clientId": "nobody@1", "msgId": "7F000001000078BF0000000000000000", "brokerName": "broker-a"}),
                         ("consumer_status", 223, {"topic": "AskData", "group": "g-none"}), ("topic_stats", 202, {"topic": "NoSuchTopic"}),
                         ("correction_offset", 308, {"topic": "NoSuchTopic", "compareGroup": "g-none"}), ("broker_stats", 315, {"statsName": "NOPE", "statsKey": "x"}),
                         ("broker_stats_known_name", 315, {"statsName": "TOPIC_PUT_NUMS", "statsKey": "NoSuchTopic"})):
        r.ask(n + ".unknown", b, code, ext)
    r.ask("consumer_connections.ok", b, 203, {"consumerGroup": "AskGroup"})
    r.ask("producer_connections.ok", b, 204, {"producerGroup": "p-ask"})
    r.ask("all_producers", b, 328, {})
    r.ask("who_consumes.ok", b, 300, {"topic": "AskData"})
    r.ask("topic_stats.ok", b, 202, {"topic": "AskData"})
    r.ask("topic_stats.empty", b, 202, {"topic": "AskReadOnly"})
    r.ask("consume_stats.ok", b, 208, {"consumerGroup": "AskGroup"})
    r.ask("consume_stats.with_unknown_topic", b, 208, {"consumerGroup": "AskGroup", "topic": "NoSuchTopic"})
    r.ask("consume_stats.group_never_online_with_offsets", b, 208, {"consumerGroup": "AskFresh"})
    r.ask("consume_time_span.ok", b, 303, {"topic": "AskData", "group": "AskGroup"})
    r.ask("broker_consume_stats", b, 317, {"isOrder": "false"})
    r.ask("query_consume_queue.ok", b, 321, {"topic": "AskData", "queueId": "0", "index": "0", "count": "2"})
    r.ask("query_consume_queue.unknown_topic", b, 321, {"topic": "NoSuchTopic", "queueId": "0", "index": "0", "count": "2"})
    r.ask("query_consume_queue.index_beyond", b, 321, {"topic": "AskData", "queueId": "0", "index": "99", "count": "2"})
    rs = {"topic": "AskData", "group": "AskFresh", "timestamp": "0", "isForce": "true"}
    r.ask("reset_offset.group_offline", b, 222, rs)
    r.ask("reset_offset.unknown_topic", b, 222, {**rs, "topic": "NoSuchTopic"})
    r.ask("reset_offset.unknown_group", b, 222, {**rs, "group": "g-none"})
    r.ask("reset_offset.queue_id_beyond", b, 222, {**rs, "queueId": "99", "offset": "1"})
    r.ask("reset_offset.offset_beyond", b, 222, {**rs, "queueId": "0", "offset": "999"})
    r.ask("clone_offset.unknown", b, 314, {"srcGroup": "g-none", "destGroup": "g-none2", "topic": "NoSuchTopic", "offline": "true"})
    r.ask("notification.codes.go_to_client_40", b, 40, {"consumerGroup": "AskGroup"})


def admin(r):
    b = "broker"
    if r.set == "strict":
        r.ask("create_topic.ok", b, 17, topic("AskMade"))
        r.ask("create_group.ok", b, 200, {}, group("AskMadeGroup"))
        return
    for n, e in names(r, 17, topic, "T"):
        r.ask("create_topic.name_" + n, b, 17, e)
    for t in ("TBW102", "SCHEDULE_TOPIC_XXXX", "SELF_TEST_TOPIC", "RMQ_SYS_TRANS_HALF_TOPIC", "rmq_sys_anything", "RMQ_SYS_TRACE_TOPIC", "DefaultCluster", "broker-a", "%RETRY%AskGroup", "%DLQ%AskGroup", "BenchmarkTest"):
        r.ask("create_topic.system_" + t, b, 17, topic(t))
    for n, o in (("queues_0", dict(readQueueNums="0", writeQueueNums="0")), ("queues_negative", dict(readQueueNums="-1", writeQueueNums="-1")), ("perm_0", dict(perm="0")), ("perm_99", dict(perm="99")),
                 ("perm_missing", dict(perm=None)), ("queues_missing", dict(readQueueNums=None)), ("filter_type_unknown", dict(topicFilterType="NOPE")),
                 ("default_topic_missing", dict(defaultTopic=None)), ("order_missing", dict(order=None)),
                 ("attribute_unknown", dict(attributes="+bad.key=1")), ("attribute_without_plus", dict(attributes="message.type=FIFO")),
                 ("attribute_value_bad", dict(attributes="+message.type=NOPE")), ("attribute_delete_absent", dict(attributes="-message.type")),
                 ("attribute_ok", dict(attributes="+message.type=FIFO,+cleanup.policy=DELETE")), ("attribute_twice", dict(attributes="+message.type=FIFO,+message.type=NORMAL"))):
        r.ask("create_topic." + n, b, 17, topic("AskMake_" + n, **o))
        r.ask("create_topic." + n + "_then_get", b, 351, {"topic": "AskMake_" + n})
    r.ask("create_topic.attribute_immutable_change", b, 17, topic("AskMake_attribute_ok", attributes="+cleanup.policy=COMPACTION"))
    r.ask("create_topic.attribute_mutable_change", b, 17, topic("AskMake_attribute_ok", attributes="+message.type=NORMAL"))
    r.ask("create_topic.same_again", b, 17, topic("AskEmpty"))
    r.ask("create_topic.fewer_queues", b, 17, topic("AskMake_attribute_ok", readQueueNums="1", writeQueueNums="1"))
    r.ask("create_topic_list.ok", b, 18, {}, {"topicConfigList": [{"topicName": "AskList1", "readQueueNums": 1, "writeQueueNums": 1, "perm": 6}, {"topicName": "AskList2", "perm": 6}]})
    r.ask("create_topic_list.then_get", b, 351, {"topic": "AskList2"})
    r.ask("create_topic_list.one_bad", b, 18, {}, {"topicConfigList": [{"topicName": "AskList3", "readQueueNums": 1, "writeQueueNums": 1, "perm": 6}, {"topicName": "bad name", "perm": 6}]})
    r.ask("create_topic_list.one_bad_then_get", b, 351, {"topic": "AskList3"})
    r.ask("create_topic_list.empty_body", b, 18, {})
    r.ask("get_topic_config.unknown", b, 351, {"topic": "NoSuchTopic"})
    r.ask("get_topic_config.ok", b, 351, {"topic": "AskData"})
    r.ask("get_topic_config.missing", b, 351, {})
    r.ask("get_group_config.ok", b, 352, {"group": "AskGroup"})
    r.ask("delete_topic.unknown", b, 215, {"topic": "NoSuchTopic"})
    r.ask("delete_topic.empty", b, 215, {"topic": ""})
    r.ask("delete_topic.missing", b, 215, {})
    for t in ("TBW102", "SCHEDULE_TOPIC_XXXX", "RMQ_SYS_TRANS_HALF_TOPIC", "DefaultCluster", "rmq_sys_wheel_timer", "bad name"):
        r.ask("delete_topic." + t.replace(" ", "_"), b, 215, {"topic": t})
    r.ask("delete_topic.ok", b, 215, {"topic": "AskList1"})
    for n, g in (("empty", ""), ("blank", "  "), ("space_inside", "bad group"), ("slash", "a/b"), ("percent", "a%b"), ("unicode", "组"), ("len_255", "g" * 255), ("len_256", "g" * 256),
                 ("system", "CID_RMQ_SYS_TRANS"), ("prefix_sys", "CID_RMQ_SYS_x"), ("tools", "TOOLS_CONSUMER")):
        r.ask("create_group.name_" + n, b, 200, {}, group(g))
    r.ask("create_group.name_absent", b, 200, {}, {"consumeEnable": True})
    r.ask("create_group.empty_body", b, 200, {})
    r.ask("create_group.garbage", b, 200, {}, "garbage")
    r.ask("create_group.retry_max_negative", b, 200, {}, group("AskGroupNeg", retryMaxTimes=-1, retryQueueNums=-1))
    r.ask("create_group.retry_max_negative_then_get", b, 352, {"group": "AskGroupNeg"})
    r.ask("create_group.attribute_bad", b, 200, {}, group("AskGroupAttr", attributes={"+bad.key": "1"}))
    r.ask("create_group.name_only", b, 200, {}, {"groupName": "AskGroupDefaults"})
    r.ask("create_group.name_only_then_get", b, 352, {"group": "AskGroupDefaults"})
    r.ask("create_group_list.ok", b, 225, {}, {"groupConfigList": [group("AskGl1"), group("AskGl2")]})
    r.ask("create_group_list.empty_body", b, 225, {})
    r.ask("delete_group.unknown", b, 207, {"groupName": "g-none", "cleanOffset": "true"})
    r.ask("delete_group.ok", b, 207, {"groupName": "AskGl1", "cleanOffset": "false"})
    r.ask("delete_group.missing", b, 207, {})
    register(r)
    r.ask("forbidden.unknown_group", b, 353, {"group": "g-none", "topic": "AskData", "readable": "false"})
    r.ask("forbidden.set", b, 353, {"group": "AskOther", "topic": "AskData", "readable": "false"})
    r.ask("forbidden.then_pull", b, 11, pull("AskData", "AskOther"))
    r.ask("forbidden.then_pull_without_subscription_in_header", b, 11, pull("AskData", "AskOther", sysFlag="0", subscription=None, subVersion="5"))
    r.ask("forbidden.get_of_other_topic", b, 353, {"group": "AskOther", "topic": "AskEmpty"})
    r.ask("forbidden.get", b, 353, {"group": "AskOther", "topic": "AskData"})
    r.ask("update_config.broker_read_only", b, 25, {}, "brokerPermission=4\n")
    r.ask("broker_read_only.send", b, 310, send2("AskData", queueId="1"), b"x")
    r.ask("broker_read_only.send_to_ordered_topic", b, 310, send2("AskOrdered"), b"x")
    r.ask("broker_read_only.send_back", b, 36, {"offset": "0", "group": "AskGroup", "delayLevel": "1", "originTopic": "AskData", "unitMode": "false"})
    r.quiet(b, 25, {}, "brokerPermission=2\n")
    r.ask("broker_write_only.pull", b, 11, pull("AskData"))
    r.ask("broker_write_only.pop", b, 200050, {"consumerGroup": "AskGroup", "topic": "AskData", "queueId": "-1", "maxMsgNums": "1", "invisibleTime": "60000", "pollTime": "0", "bornTime": str(int(time.time() * 1000)), "initMode": "0"})
    r.quiet(b, 25, {}, "brokerPermission=6\n")
    r.ask("all_topic_config", b, 21, {}, keep="keys")
    r.ask("all_topic_config.paged", b, 21, {"topicSeq": "0", "maxTopicNum": "2"})
    r.ask("all_topic_config.paged_beyond", b, 21, {"topicSeq": "9999", "maxTopicNum": "2"})
    r.ask("all_groups.paged", b, 201, {"groupSeq": "0", "maxGroupNum": "1"})
    r.ask("all_groups", b, 201, {}, keep="keys")
    r.ask("all_consumer_offsets", b, 43, {}, keep="keys")
    r.ask("all_delay_offsets", b, 45, {})
    r.ask("system_topics_of_broker", b, 305, {})
    r.ask("runtime_info", b, 28, {}, keep="keys")
    r.ask("broker_config", b, 26, {}, keep="keys")
    r.ask("update_config.empty_body", b, 25, {})
    r.ask("update_config.no_ext_empty_body", b, 25, None)
    r.ask("update_config.unknown_key", b, 25, {}, "noSuchKey=1\n")
    r.ask("update_config.blacklisted_key", b, 25, {}, "brokerConfigPath=x\n")
    r.ask("update_config.bad_value", b, 25, {}, "fileReservedTime=abc\n")
    r.ask("update_config.ok", b, 25, {}, "traceOn=true\n")
    r.ask("ha_status", b, 907, {})
    r.ask("ha_info_exchange", b, 906, {})
    r.ask("epoch_cache", b, 1007, {})
    r.ask("member_group", b, 901, {"clusterName": "DefaultCluster", "brokerName": "broker-a"})
    r.ask("timer_check_point", b, 60, {})
    r.ask("timer_metrics", b, 61, {})
    r.ask("clean_expired_queues", b, 306, {})
    r.ask("clean_unused_topics", b, 316, {})
    r.ask("cold_data_info", b, 2003, {})
    r.ask("cold_data_update_empty", b, 2001, {})
    r.ask("commitlog_read_mode_bad", b, 2004, {"READ_MODE": "x"})
    r.ask("rocksdb_progress", b, 354, {"topic": "AskData", "checkStoreTime": "0"})
    r.ask("rocksdb_export", b, 355, {"configType": "topics"})
    r.ask("static_topic_empty_body", b, 513, topic("AskStatic"))
    for code, n in ((3001, "create_user"), (3003, "delete_user"), (3004, "get_user"), (3005, "list_users"), (3006, "create_acl"), (3009, "get_acl"), (3010, "list_acls")):
        r.ask("auth." + n, b, code, {"username": "u", "subject": "User:u", "filter": "", "subjectFilter": "", "resourceFilter": ""})
    for code in (9999, 0, -1, 13, 22, 27, 47, 209, 301, 105, 103, 106, 206, 220, 39, 326):
        r.ask("code_%d" % code, b, code, {})
    r.ask("query_data_version_to_broker", b, 322, {})


def trimmed(r):
    """The head of a queue goes."""
    b = "broker"
    r.quiet(b, 17, topic("AskTrim", readQueueNums="1", writeQueueNums="1"))
    for i in range(60):
        r.quiet(b, 310, send2("AskTrim", properties=f"KEYS\u0001trim{i}\u0002"), b"t" * 8000)
    r.quiet(b, 25, {}, "fileReservedTime=0\ndeleteCommitLogFilesInterval=10\n")
    for i in range(40):
        r.quiet(b, 329, {})
        time.sleep(1.5)
        x = r.quiet(b, 31, {"topic": "AskTrim", "queueId": "0"})
        if x["extFields"]["offset"] != "0":
            break
    time.sleep(12)
    r.ask("trimmed.min_offset", b, 31, {"topic": "AskTrim", "queueId": "0"}, note="60 messages were sent, then the expired segments of 64 KiB deleted")
    r.ask("trimmed.max_offset", b, 30, {"topic": "AskTrim", "queueId": "0"})
    r.ask("trimmed.pull_offset_0", b, 11, pull("AskTrim", subscription="TagNone"))
    r.ask("trimmed.pull_offset_negative", b, 11, pull("AskTrim", offset=-1, subscription="TagNone"))
    r.ask("trimmed.pull_max", b, 11, pull("AskTrim", offset=60))
    for z in (None, "true", "false"):
        r.ask("trimmed.query_offset_set_zero_" + (z or "absent"), b, 14, {"consumerGroup": "AskFresh", "topic": "AskTrim", "queueId": "0", **({"setZeroIfNotFound": z} if z else {})})
    r.ask("trimmed.earliest", b, 32, {"topic": "AskTrim", "queueId": "0"})
    r.ask("trimmed.search_0", b, 29, {"topic": "AskTrim", "queueId": "0", "timestamp": "0"})
    r.ask("trimmed.search_0_upper", b, 29, {"topic": "AskTrim", "queueId": "0", "timestamp": "0", "boundaryType": "UPPER"})
    r.ask("trimmed.view_offset_0", b, 33, {"offset": "0"})
    r.ask("trimmed.pull_other_topic_all_gone", b, 11, pull("AskData"))
    r.ask("trimmed.min_of_other_topic", b, 31, {"topic": "AskData", "queueId": "0"})
    r.ask("trimmed.max_of_other_topic", b, 30, {"topic": "AskData", "queueId": "0"})
    r.ask("trimmed.earliest_of_other_topic", b, 32, {"topic": "AskData", "queueId": "0"})
    r.ask("trimmed.query_message_gone", b, 12, {"topic": "AskTrim", "key": "trim0", "maxNum": "32", "beginTimestamp": "0", "endTimestamp": "9999999999999"})
    r.ask("trimmed.send_back_gone", b, 36, {"offset": "0", "group": "AskGroup", "delayLevel": "1"})


def nameserver(r):
    n = "ns"
    ask = lambda name, code, ext=None, body=b"", **k: r.ask("ns." + name, n, code, ext if ext is not None else {}, body, **k)
    empty = r.set == "ns-empty"
    ask("cluster_info", 106)
    ask("topic_list", 206)
    ask("route_unknown", 105, {"topic": "NoSuchTopic"})
    if not empty:
        for v, vn in ((HIGH, "high"), (LOW, "low"), (401, "V4_9_4"), (0, "0")):
            for s in (None, "true", "false"):
                ask("route_TBW102_version_%s_standard_%s" % (vn, s or "absent"), 105, {"topic": "TBW102", **({"acceptStandardJsonOnly": s} if s else {})}, version=v)
        ask("route_DefaultCluster", 105, {"topic": "DefaultCluster"})
        ask("topics_by_cluster", 224, {"cluster": "DefaultCluster"})
        ask("member_group", 901, {"clusterName": "DefaultCluster", "brokerName": "broker-a"})
        return
    ask("route_empty_name", 105, {"topic": ""})
    ask("route_missing_name", 105, {})
    r.ask("ns.route_no_ext_fields", n, 105, None)
    ask("kv_get_unknown", 101, {"namespace": "NS", "key": "k"})
    ask("kv_list_unknown_namespace", 219, {"namespace": "NS"})
    ask("kv_delete_unknown", 102, {"namespace": "NS", "key": "k"})
    ask("kv_put", 100, {"namespace": "NS", "key": "k", "value": "v;1"})
    ask("kv_put_missing_value", 100, {"namespace": "NS", "key": "k2"})
    ask("kv_put_missing_namespace", 100, {"key": "k2", "value": "v"})
    ask("kv_get", 101, {"namespace": "NS", "key": "k"})
    ask("kv_get_unknown_key", 101, {"namespace": "NS", "key": "other"})
    ask("kv_list", 219, {"namespace": "NS"})
    ask("kv_delete", 102, {"namespace": "NS", "key": "k"})
    ask("kv_list_after_delete", 219, {"namespace": "NS"})
    ask("wipe_unknown_broker", 205, {"brokerName": "broker-none"})
    ask("add_write_unknown_broker", 327, {"brokerName": "broker-none"})
    ask("wipe_missing_name", 205, {})
    ask("delete_topic_unknown", 216, {"topic": "NoSuchTopic"})
    ask("delete_topic_unknown_cluster", 216, {"topic": "NoSuchTopic", "clusterName": "NoCluster"})
    ask("topics_by_cluster_unknown", 224, {"cluster": "NoCluster"})
    ask("system_topics", 304)
    ask("unit_topics", 311)
    ask("unit_sub_topics", 312)
    ask("unit_sub_ununit_topics", 313)
    ask("member_group_unknown", 901, {"clusterName": "NoCluster", "brokerName": "broker-none"})
    ask("broker_heartbeat_unknown", 904, {"clusterName": "Fake", "brokerAddr": "10.9.9.9:10911", "brokerName": "broker-z", "brokerId": "0"})
    ask("config", 319, keep="keys")
    ask("update_config_empty", 318)
    ask("update_config_blacklisted", 318, {}, "configStorePath=x\n")
    ask("update_config_unknown", 318, {}, "noSuchKey=1\n")
    ask("unregister_unknown", 104, {"clusterName": "Fake", "brokerAddr": "10.9.9.9:10911", "brokerName": "broker-z", "brokerId": "0"})
    for code in (9999, 10, 34, 17):
        ask("code_%d" % code, code)
    reg = {"brokerName": "broker-z", "brokerAddr": "10.9.9.9:10911", "clusterName": "Fake", "haServerAddr": "10.9.9.9:10912", "brokerId": "0", "compressed": "false", "heartbeatTimeoutMillis": "60000"}
    dv = {"counter": 1, "stateVersion": 0, "timestamp": 1700000000000}
    table = lambda *names: {t: {"topicName": t, "readQueueNums": 2, "writeQueueNums": 3, "perm": 6, "topicFilterType": "SINGLE_TAG", "topicSysFlag": 0, "order": False} for t in names}
    wrap = lambda version, *names: json.dumps({"filterServerList": [], "topicConfigSerializeWrapper": {
        "dataVersion": version, "mappingDataVersion": version, "topicQueueMappingInfoMap": {}, "topicQueueMappingDetailMap": {}, "topicConfigTable": table(*names)}}).encode()
    one, body = wrap(dv, "AskOne"), wrap(dv, "AskOne", "AskTwo")
    crc = lambda x: str(zlib.crc32(x) & 0x7FFFFFFF)
    qdv = {"brokerName": "broker-z", "brokerAddr": "10.9.9.9:10911", "clusterName": "Fake", "brokerId": "0"}
    ask("query_data_version_unknown_broker", 322, qdv, dv)
    ask("query_data_version_no_body", 322, qdv)
    ask("register_crc_bad", 103, {**reg, "bodyCrc32": "12345"}, body)
    ask("register_one_topic_of_unknown_broker", 103, {**reg, "bodyCrc32": crc(one)}, one)
    ask("cluster_info_after_refusal", 106)
    ask("register_crc_0", 103, {**reg, "bodyCrc32": "0"}, body)
    ask("register_crc_absent", 103, reg, body)
    ask("register", 103, {**reg, "bodyCrc32": crc(body)}, body)
    ask("register_again", 103, {**reg, "bodyCrc32": crc(body)}, body)
    newer = wrap({**dv, "counter": 2}, "AskThree")
    ask("register_one_more_topic_of_known_broker", 103, {**reg, "bodyCrc32": crc(newer)}, newer)
    ask("topic_list_after_one_more_topic", 206)
    ask("register_older_data_version", 103, {**reg, "bodyCrc32": crc(body)}, body)
    ask("register_garbage", 103, {**reg, "bodyCrc32": crc(b"garbage")}, b"garbage")
    ask("register_garbage_compressed", 103, {**reg, "compressed": "true", "bodyCrc32": crc(b"garbage")}, b"garbage")
    ask("register_slave", 103, {**reg, "brokerId": "1", "brokerAddr": "10.9.9.8:10911", "haServerAddr": "10.9.9.8:10912", "bodyCrc32": crc(body)}, body)
    low = wrap({**dv, "stateVersion": -1}, "AskOne", "AskTwo")
    ask("register_same_id_other_address_older_state", 103, {**reg, "brokerAddr": "10.9.9.5:10911", "bodyCrc32": crc(low)}, low)
    ask("register_master_back", 103, {**reg, "bodyCrc32": crc(body)}, body)
    ask("register_low_version", 103, {**reg, "bodyCrc32": crc(body)}, body, version=LOW)
    ask("register_missing_ha", 103, {k: v for k, v in reg.items() if k != "haServerAddr"}, body)
    ask("register_no_body", 103, {**reg, "brokerName": "broker-y", "brokerAddr": "10.9.9.7:10911"})
    ask("register_acting_master_slave_only", 103, {**reg, "brokerName": "broker-x", "brokerId": "1", "brokerAddr": "10.9.9.6:10911", "enableActingMaster": "true", "bodyCrc32": crc(body)}, body)
    ask("query_data_version_same", 322, qdv, dv)
    ask("query_data_version_newer", 322, qdv, {**dv, "counter": 2})
    ask("query_data_version_no_state", 322, qdv, {"counter": 1, "timestamp": 1700000000000})
    ask("route_AskOne", 105, {"topic": "AskOne"})
    ask("route_AskOne_low_version", 105, {"topic": "AskOne"}, version=LOW)
    ask("route_cluster_name", 105, {"topic": "Fake"})
    ask("cluster_info_registered", 106)
    ask("topic_list_registered", 206)
    ask("topics_by_cluster_registered", 224, {"cluster": "Fake"})
    ask("system_topics_registered", 304)
    ask("member_group_registered", 901, {"clusterName": "Fake", "brokerName": "broker-z"})
    ask("member_group_other_cluster", 901, {"clusterName": "NoCluster", "brokerName": "broker-z"})
    ask("broker_heartbeat_known", 904, {"clusterName": "Fake", "brokerAddr": "10.9.9.9:10911", "brokerName": "broker-z", "brokerId": "0"})
    ask("kv_put_order", 100, {"namespace": "ORDER_TOPIC_CONFIG", "key": "AskOne", "value": "broker-z:3"})
    ask("route_AskOne_with_order_conf", 105, {"topic": "AskOne"})
    ask("register_returns_order_conf", 103, {**reg, "bodyCrc32": crc(body)}, body)
    ask("wipe", 205, {"brokerName": "broker-z"})
    ask("route_AskOne_wiped", 105, {"topic": "AskOne"})
    ask("wipe_again", 205, {"brokerName": "broker-z"})
    ask("add_write", 327, {"brokerName": "broker-z"})
    ask("route_AskOne_added", 105, {"topic": "AskOne"})
    ask("register_topic", 217, {"topic": "AskRegistered"}, {"brokerDatas": [], "queueDatas": [{"brokerName": "broker-z", "readQueueNums": 1, "writeQueueNums": 1, "perm": 6, "topicSysFlag": 0}], "filterServerTable": {}})
    ask("register_topic_empty_body", 217, {"topic": "AskRegistered2"})
    ask("route_AskRegistered", 105, {"topic": "AskRegistered"})
    ask("delete_topic_of_cluster", 216, {"topic": "AskRegistered", "clusterName": "Fake"})
    ask("route_AskRegistered_deleted", 105, {"topic": "AskRegistered"})
    ask("delete_topic", 216, {"topic": "AskOne"})
    ask("route_AskOne_deleted", 105, {"topic": "AskOne"})
    ask("register_same_data_version_after_delete", 103, {**reg, "bodyCrc32": crc(body)}, body)
    ask("route_AskOne_after_register", 105, {"topic": "AskOne"})
    ask("unregister_master", 104, qdv)
    time.sleep(1)
    ask("route_AskOne_without_master", 105, {"topic": "AskOne"})
    ask("unregister_slave", 104, {**qdv, "brokerId": "1", "brokerAddr": "10.9.9.8:10911"})
    ask("unregister_x", 104, {**qdv, "brokerId": "1", "brokerAddr": "10.9.9.6:10911", "brokerName": "broker-x"})
    ask("unregister_y", 104, {**qdv, "brokerAddr": "10.9.9.7:10911", "brokerName": "broker-y"})
    time.sleep(1)
    ask("route_AskOne_unregistered", 105, {"topic": "AskOne"})
    ask("cluster_info_unregistered", 106)
    ask("register_missing_broker_name", 103, {k: v for k, v in reg.items() if k != "brokerName"}, body)
    ask("cluster_info_after_missing_broker_name", 106)
    r.quiet(n, 102, {"namespace": "ORDER_TOPIC_CONFIG", "key": "AskOne"})


# values that are different in every run
OWN = {"transactionId", "msgId", "popTime", "timestamp", "indexLastUpdateTimestamp", "indexLastUpdatePhyoffset", "masterHaAddress", "startOffsetInfo", "msgOffsetInfo", "reviveQid", "version", "bodyHex", "bodySize"}
RANDOM_QUEUE = {"send.queue_id_minus_1", "pop.unknown_group", "pop.missing_invisible_time", "broker_consume_stats"}


def steady(v, key=""):
    if key == "messages":
        return [{k: x for k, x in m.items() if k not in ("physicalOffset", "size")} for m in v]
    if isinstance(v, dict):
        return {k: "<any>" if k in OWN else steady(x, k) for k, x in v.items()}
    if isinstance(v, str):
        v = re.sub(r"\b1[789]\d{11}\b", "<time>", v)
        v = re.sub(r"\b\d{4}-\d\d-\d\d#\d\d:\d\d:\d\d:\d{3}\b", "<time>", v)
        v = re.sub(r"\b127\.0\.0\.1:\d+", "<address>", v)
    return v


def sort(v):
    """Sets are written in any order."""
    if isinstance(v, list):
        return sorted((sort(x) for x in v), key=json.dumps)
    return {k: sort(x) for k, x in v.items() if k not in ("delayTime", "consumeTps", "topicPutTps")} if isinstance(v, dict) else v


def exception(remark):
    """The text of a Java exception is not for imitation; its code is."""
    return bool(remark) and re.search(r"java\.|Cannot invoke|fastjson|\.parser\.", remark) is not None


OBJECT_KEY = re.compile(r"\{([^{}]*)\}:")  # fastjson writes a map's object key as it is


def body_equal(a, b):
    if a == b:
        return True
    try:
        f = lambda s: sort(json.loads(re.sub(r'([{,])(-?\d+):', r'\1"\2":', OBJECT_KEY.sub(lambda m: json.dumps(",".join(sorted(m[1].split(",")))) + ":", s.replace("<time>", "0")))))
        return f(a) == f(b)
    except (ValueError, TypeError):
        return False


def compare(old, new):
    want, bad = {(a["set"], a["name"]): a for a in old}, 0
    for a in new:
        w = want.get((a["set"], a["name"]))
        if w is None:
            print("not asked before:", a["name"])
            continue
        x, y = steady(w["response"]), steady(a["response"])
        if a["name"] in RANDOM_QUEUE:
            for z in (x, y):
                z["ext"] = {k: v for k, v in (z.get("ext") or {}).items() if k != "queueId"}
                z.pop("messages", None)
                z.pop("body", None)
        d = [k for k in sorted(set(x) | set(y)) if not (x.get(k) == y.get(k) or (k == "remark" and exception(x.get(k))) or (k == "body" and body_equal(x.get(k), y.get(k))))]
        if d:
            bad += 1
            print(a["name"])
            for k in d:
                print("   %-8s expected %s\n            got      %s" % (k, json.dumps(x.get(k), ensure_ascii=False)[:600], json.dumps(y.get(k), ensure_ascii=False)[:600]))
    print("%d of %d differ" % (bad, len(new)))
    return bad


def main():
    p = argparse.ArgumentParser(usage=__doc__)
    p.add_argument("set", choices=SETS)
    p.add_argument("--ns", required=True)
    p.add_argument("--broker")
    p.add_argument("--out")
    p.add_argument("--compare")
    o = p.parse_args()
    r = Run(o.set, Link(o.ns), Link(o.broker) if o.broker else None)
    if o.set != "trim":
        nameserver(r)
    if o.set != "ns-empty":
        setup(r)
        for f in (trimmed,) if o.set == "trim" else (sends, pulls, offsets, messages, clients, admin):
            f(r)
    if o.out:
        try:
            doc = json.load(open(o.out))
        except FileNotFoundError:
            doc = {"answeredBy": "Apache RocketMQ 5.5.0", "answers": []}
        doc["answers"] = sorted([a for a in doc["answers"] if a["set"] != o.set] + r.answers, key=lambda a: SETS.index(a["set"]))
        with open(o.out, "w") as f:
            f.write('{"answeredBy": %s, "answers": [\n' % json.dumps(doc["answeredBy"]))
            f.write(",\n".join(json.dumps(a, ensure_ascii=False) for a in doc["answers"]))
            f.write("\n]}\n")
        print("%d answers in set %s" % (len(r.answers), o.set))
    if o.compare:
        sys.exit(1 if compare(json.load(open(o.compare))["answers"], r.answers) else 0)


main()
