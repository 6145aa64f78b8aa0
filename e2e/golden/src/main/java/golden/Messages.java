package golden;

import com.google.gson.JsonObject;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.Consumer;
import org.apache.rocketmq.common.BrokerConfig;
import org.apache.rocketmq.common.TopicFilterType;
import org.apache.rocketmq.common.compression.CompressionType;
import org.apache.rocketmq.common.compression.CompressorFactory;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageClientIDSetter;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageExtBatch;
import org.apache.rocketmq.common.message.MessageExtBrokerInner;
import org.apache.rocketmq.common.message.MessageId;
import org.apache.rocketmq.common.sysflag.MessageSysFlag;
import org.apache.rocketmq.store.DefaultMessageStore;
import org.apache.rocketmq.store.PutMessageResult;
import org.apache.rocketmq.store.SelectMappedBufferResult;
import org.apache.rocketmq.store.config.MessageStoreConfig;
import org.apache.rocketmq.store.stats.BrokerStatsManager;

/** Stored messages, batches, properties, ids and hashes. */
final class Messages {
    static final long T = Bodies.T;
    static final String UNIQ = "0A010203000718B4AAC2000012340005";
    static final String UNIQ6 = "20010DB8000000000000000000000001000718B4AAC2000012340005";
    static final byte[] HELLO = Out.utf8("hello, 世界");

    static void run(Path dir, Path work) throws Exception {
        Out out = new Out(dir);
        stored(out, work);
        decoderEncoded(out);
        batches(out);
        properties(out);
        ids(out);
        hashes(out);
        out.writeIndex("index.json");
    }

    static InetSocketAddress addr(String ip, int port) throws Exception {
        return new InetSocketAddress(InetAddress.getByName(ip), port);
    }

    static MessageExtBrokerInner inner(String topic, byte[] body) throws Exception {
        MessageExtBrokerInner m = new MessageExtBrokerInner();
        m.setTopic(topic);
        m.setBody(body);
        m.setQueueId(3);
        m.setFlag(17);
        m.setBornTimestamp(T);
        m.setBornHost(addr("10.1.2.3", 40001));
        m.setStoreHost(addr("10.1.0.1", 10911));
        return m;
    }

    static MessageExtBrokerInner props(MessageExtBrokerInner m) {
        m.setTags("TagA");
        m.setKeys("key1 key2");
        m.putUserProperty("user", "value");
        m.putUserProperty("UNIQ_KEY_LIKE", "x");
        m.getProperties().put("UNIQ_KEY", UNIQ);
        m.setWaitStoreMsgOK(true);
        return m;
    }

    static DefaultMessageStore store(Path work, Consumer<MessageStoreConfig> tune) throws Exception {
        MessageStoreConfig c = new MessageStoreConfig();
        c.setStorePathRootDir(work.toString());
        c.setStorePathCommitLog(work.resolve("commitlog").toString());
        c.setMappedFileSizeCommitLog(1 << 20);
                c.setMaxHashSlotNum(100);
        c.setMaxIndexNum(400);
        c.setTimerWheelEnable(false);
        tune.accept(c);
        BrokerConfig b = new BrokerConfig();
        DefaultMessageStore s = new DefaultMessageStore(c, new BrokerStatsManager("c", false), null, b, new ConcurrentHashMap<>());
        if (!s.load()) throw new IllegalStateException("load");
        s.getAllocateMappedFileService().start();
        return s;
    }

    static void stored(Out out, Path work) throws Exception {
        Map<String, MessageExtBrokerInner> m = new LinkedHashMap<>();
        m.put("plain", props(inner("TopicA", HELLO)));
        m.put("no_properties", inner("TopicA", HELLO));
        m.put("empty_body", inner("TopicA", new byte[0]));
        MessageExtBrokerInner u = inner("TopicA", HELLO);
        u.setTags("标签");
        u.setKeys("键1 键2 ü🚀");
        u.putUserProperty("用户", "值=1;&\n");
        m.put("unicode_properties", u);
        m.put("topic_127", props(inner("t".repeat(127), HELLO)));
        m.put("topic_128_v2", props(inner("t".repeat(128), HELLO)));
        m.put("topic_200_v2", props(inner("t".repeat(200), HELLO)));
        MessageExtBrokerInner b6 = props(inner("TopicA", HELLO));
        b6.setBornHost(addr("2001:db8::1", 40001));
        m.put("born_v6", b6);
        MessageExtBrokerInner s6 = props(inner("TopicA", HELLO));
        s6.setStoreHost(addr("2001:db8::2", 10911));
        m.put("store_v6", s6);
        MessageExtBrokerInner both = props(inner("t".repeat(200), HELLO));
        both.setBornHost(addr("2001:db8::1", 40001));
        both.setStoreHost(addr("2001:db8::2", 10911));
        m.put("both_v6_topic_200_v2", both);
        byte[] big = Out.utf8("compress me, ".repeat(400));
        for (CompressionType t : CompressionType.values()) {
            MessageExtBrokerInner c = props(inner("TopicA", CompressorFactory.getCompressor(t).compress(big, 5)));
            c.setSysFlag(t.getCompressionFlag() | MessageSysFlag.COMPRESSED_FLAG);
            m.put("compressed_" + t.name().toLowerCase(), c);
        }
        MessageExtBrokerInner zl = props(inner("TopicA", CompressorFactory.getCompressor(CompressionType.ZLIB).compress(big, 5)));
        zl.setSysFlag(MessageSysFlag.COMPRESSED_FLAG);
        m.put("compressed_zlib_without_type", zl);
        int i = 0;
        for (int f : new int[] {MessageSysFlag.TRANSACTION_PREPARED_TYPE, MessageSysFlag.TRANSACTION_COMMIT_TYPE, MessageSysFlag.TRANSACTION_ROLLBACK_TYPE}) {
            MessageExtBrokerInner t = props(inner("TopicA", HELLO));
            t.setSysFlag(f);
            t.setPreparedTransactionOffset(i++ * 4096L);
            m.put("transaction_" + new String[] {"prepared", "commit", "rollback"}[i - 1], t);
        }
        MessageExtBrokerInner mt = props(inner("TopicA", HELLO));
        mt.setSysFlag(MessageSysFlag.MULTI_TAGS_FLAG | MessageSysFlag.NEED_UNWRAP_FLAG);
        mt.setReconsumeTimes(3);
        mt.setFlag(-1);
        m.put("multi_tags_reconsumed", mt);

        DefaultMessageStore s = store(work.resolve("a"), c -> { });
        for (Map.Entry<String, MessageExtBrokerInner> e : m.entrySet()) put(out, s, e.getKey(), e.getValue());

        MessageExtBatch batch = new MessageExtBatch();
        batch.setTopic("TopicA");
        batch.setQueueId(3);
        batch.setBornTimestamp(T);
        batch.setBornHost(addr("10.1.2.3", 40001));
        batch.setStoreHost(addr("10.1.0.1", 10911));
        batch.setBody(batchBody());
        batch.putUserProperty("CLUSTER_LIKE", "DefaultCluster");
        batch.setPropertiesString(MessageDecoder.messageProperties2String(batch.getProperties()));
        PutMessageResult r = s.getCommitLog().asyncPutMessages(batch).get();
        SelectMappedBufferResult sel = s.getCommitLog().getMessage(r.getAppendMessageResult().getWroteOffset(), r.getAppendMessageResult().getWroteBytes());
        byte[] bytes = new byte[sel.getSize()];
        sel.getByteBuffer().get(bytes);
        JsonObject e = out.file("stored", "messages/batch_as_stored.bin", bytes);
        e.addProperty("note", "batch_three.bin put as one batch with batch property CLUSTER_LIKE=DefaultCluster: three messages back to back; 5.5.0 does not store the batch's own properties");
        e.addProperty("msgId", r.getAppendMessageResult().getMsgId());
        e.addProperty("msgNum", r.getAppendMessageResult().getMsgNum());
        for (MessageExt x : MessageDecoder.decodes(ByteBuffer.wrap(bytes), true)) add(e, "messages", fields(x));

        DefaultMessageStore crc = store(work.resolve("b"), c -> c.setEnabledAppendPropCRC(true));
        put(out, crc, "property_crc", props(inner("TopicA", HELLO)));
        put(out, crc, "property_crc_no_properties", inner("TopicA", HELLO));
    }

    static void add(JsonObject o, String list, JsonObject x) {
        if (!o.has(list)) o.add(list, new com.google.gson.JsonArray());
        o.getAsJsonArray(list).add(x);
    }

    static void put(Out out, DefaultMessageStore s, String name, MessageExtBrokerInner m) throws Exception {
        m.setPropertiesString(MessageDecoder.messageProperties2String(m.getProperties()));
        m.setTagsCode(MessageExtBrokerInner.tagsString2tagsCode(TopicFilterType.SINGLE_TAG, m.getTags()));
        PutMessageResult r = s.getCommitLog().asyncPutMessage(m).get();
        if (!r.isOk()) throw new IllegalStateException(name + " " + r);
        SelectMappedBufferResult sel = s.getCommitLog().getMessage(r.getAppendMessageResult().getWroteOffset(), r.getAppendMessageResult().getWroteBytes());
        byte[] bytes = new byte[sel.getSize()];
        sel.getByteBuffer().get(bytes);
        JsonObject e = out.file("stored", "messages/" + name + ".bin", bytes);
        e.addProperty("name", name);
        e.addProperty("how", "bytes of the commit log after CommitLog.asyncPutMessage");
        e.addProperty("offsetMsgId", r.getAppendMessageResult().getMsgId());
        e.addProperty("bodyCrc32", Out.crc(m.getBody()));
        raw(e, bytes);
        MessageExt d = MessageDecoder.decode(ByteBuffer.wrap(bytes), true, false, false);
        e.add("fields", fields(d));
        e.addProperty("propertiesString", m.getPropertiesString());
        e.addProperty("tagsCode", m.getTagsCode());
    }

    static void raw(JsonObject e, byte[] bytes) {
        ByteBuffer b = ByteBuffer.wrap(bytes);
        e.addProperty("magic", Integer.toHexString(b.getInt(4)));
        e.addProperty("bodyCrcField", b.getInt(8));
        int sys = b.getInt(36);
        e.addProperty("bornHostBytes", (sys & 0x10) == 0 ? 8 : 20);
        e.addProperty("storeHostBytes", (sys & 0x20) == 0 ? 8 : 20);
    }

    static JsonObject fields(MessageExt d) {
        JsonObject f = new JsonObject();
        f.addProperty("storeSize", d.getStoreSize());
        f.addProperty("bodyCRC", d.getBodyCRC());
        f.addProperty("queueId", d.getQueueId());
        f.addProperty("flag", d.getFlag());
        f.addProperty("queueOffset", d.getQueueOffset());
        f.addProperty("physicalOffset", d.getCommitLogOffset());
        f.addProperty("sysFlag", d.getSysFlag());
        f.addProperty("bornTimestamp", d.getBornTimestamp());
        f.addProperty("bornHost", host(d.getBornHost()));
        f.addProperty("storeTimestamp", d.getStoreTimestamp());
        f.addProperty("storeHost", host(d.getStoreHost()));
        f.addProperty("reconsumeTimes", d.getReconsumeTimes());
        f.addProperty("preparedTransactionOffset", d.getPreparedTransactionOffset());
        f.addProperty("topic", d.getTopic());
        f.addProperty("bodyHex", d.getBody() == null ? null : Out.hex(d.getBody()));
        f.add("properties", Out.value(new java.util.TreeMap<>(d.getProperties() == null ? Map.of() : d.getProperties())));
        f.addProperty("msgId", d.getMsgId());
        return f;
    }

    static String host(java.net.SocketAddress a) {
        InetSocketAddress s = (InetSocketAddress) a;
        return (s.getAddress() instanceof java.net.Inet6Address ? "[" + s.getAddress().getHostAddress() + "]" : s.getAddress().getHostAddress()) + ":" + s.getPort();
    }

    static void decoderEncoded(Out out) throws Exception {
        for (boolean v6 : new boolean[] {false, true}) {
            MessageExt x = props(inner("TopicA", HELLO));
            x.setQueueOffset(42);
            x.setCommitLogOffset(1024);
            x.setStoreTimestamp(T + 5);
            x.setBodyCRC(org.apache.rocketmq.common.UtilAll.crc32(HELLO));
            if (v6) {
                x.setBornHost(addr("2001:db8::1", 40001));
                x.setStoreHost(addr("2001:db8::2", 10911));
                x.setBornHostV6Flag();
                x.setStoreHostAddressV6Flag();
            }
            byte[] b = MessageDecoder.encode(x, false);
            JsonObject e = out.file("decoderEncoded", "messages/decoder_encode_" + (v6 ? "v6" : "v4") + ".bin", b);
            e.addProperty("how", "MessageDecoder.encode(MessageExt, false)");
            raw(e, b);
            e.add("fields", fields(MessageDecoder.decode(ByteBuffer.wrap(b), true, false, false)));
        }
    }

    static List<Message> three() {
        List<Message> l = new ArrayList<>();
        for (int i = 0; i < 3; i++) {
            Message m = new Message("TopicA", i == 2 ? null : "Tag" + (char) ('A' + i), Out.utf8("body-" + i));
            m.setFlag(i);
            if (i == 1) m.setKeys("批1");
            m.setWaitStoreMsgOK(true);
            m.getProperties().put("UNIQ_KEY", UNIQ.substring(0, 28) + String.format("%04X", i));
            l.add(m);
        }
        return l;
    }

    static byte[] batchBody() {
        return MessageDecoder.encodeMessages(three());
    }

    static void batches(Out out) throws Exception {
        JsonObject e = out.file("batches", "messages/batch_three.bin", batchBody());
        e.addProperty("how", "MessageDecoder.encodeMessages");
        for (Message m : three()) {
            JsonObject x = new JsonObject();
            x.addProperty("flag", m.getFlag());
            x.addProperty("bodyHex", Out.hex(m.getBody()));
            x.addProperty("propertiesString", MessageDecoder.messageProperties2String(m.getProperties()));
            x.add("properties", Out.value(m.getProperties()));
            add(e, "messages", x);
        }
        Message bare = new Message();
        bare.setTopic("TopicA");
        bare.setBody(new byte[0]);
        JsonObject o = out.file("batches", "messages/batch_one_empty.bin", MessageDecoder.encodeMessages(List.of(bare)));
        o.addProperty("how", "MessageDecoder.encodeMessages of one message without body bytes and properties");
        JsonObject x = new JsonObject();
        x.addProperty("flag", 0);
        x.addProperty("bodyHex", "");
        x.addProperty("propertiesString", "");
        x.add("properties", new JsonObject());
        add(o, "messages", x);
    }

    static void properties(Out out) {
        List<Map<String, String>> maps = new ArrayList<>();
        maps.add(null);
        maps.add(new LinkedHashMap<>());
        Map<String, String> a = new LinkedHashMap<>();
        a.put("KEYS", "k1 k2");
        a.put("TAGS", "TagA");
        a.put("UNIQ_KEY", UNIQ);
        a.put("WAIT", "true");
        maps.add(a);
        Map<String, String> b = new LinkedHashMap<>();
        b.put("键", "值 🚀");
        b.put("empty", "");
        b.put("null", null);
        b.put("", "no name");
        b.put("last", "x");
        maps.add(b);
        for (Map<String, String> m : maps) {
            JsonObject o = new JsonObject();
            o.add("map", m == null ? com.google.gson.JsonNull.INSTANCE : new com.google.gson.GsonBuilder().serializeNulls().create().toJsonTree(m));
            o.addProperty("string", MessageDecoder.messageProperties2String(m));
            out.list("properties2String").add(o);
        }
        for (String s : new String[] {null, "", "a\u0001b\u0002", "a\u0001b", "a\u0001b\u0002c", "a\u0001b\u0002c\u0001", "a\u0001b\u0002c\u0001\u0002",
            "\u0001b\u0002a\u0001c", "a\u0001b\u0002a\u0001c\u0002", "a\u0001b\u0001c\u0002d\u0001e\u0002", "\u0002\u0002a\u0001b\u0002", "a", "a\u0002\u0001b"}) {
            JsonObject o = new JsonObject();
            o.addProperty("string", s);
            o.add("map", Out.value(new java.util.TreeMap<>(MessageDecoder.string2messageProperties(s))));
            out.list("string2Properties").add(o);
        }
    }

    static void ids(Out out) throws Exception {
        for (String ip : new String[] {"10.1.2.3", "255.255.255.255", "2001:db8::1"}) {
            for (long off : new long[] {0, 1024, Long.MAX_VALUE}) {
                InetSocketAddress a = addr(ip, 10911);
                byte[] host = a.getAddress().getAddress();
                ByteBuffer hb = ByteBuffer.allocate(host.length + 4);
                hb.put(host).putInt(10911).flip();
                String id = MessageDecoder.createMessageId(ByteBuffer.allocate(host.length + 12), hb, off);
                MessageId back = MessageDecoder.decodeMessageId(id);
                JsonObject o = new JsonObject();
                o.addProperty("address", host(a));
                o.addProperty("offset", off);
                o.addProperty("id", id);
                o.addProperty("decodedAddress", host(back.getAddress()));
                o.addProperty("decodedOffset", back.getOffset());
                o.addProperty("fromSocketAddress", MessageDecoder.createMessageId(a, off));
                out.list("messageIds").add(o);
            }
        }
        for (String u : new String[] {UNIQ, UNIQ6}) {
            JsonObject o = new JsonObject();
            o.addProperty("uniqKey", u);
            o.addProperty("ip", MessageClientIDSetter.getIPStrFromID(u));
            o.addProperty("pid", MessageClientIDSetter.getPidFromID(u));
            o.addProperty("layout", "ip (4 or 16 bytes), pid u16, class loader hash u32, ms since the start of the month u32, counter u16; upper-case hex");
            out.list("uniqKeys").add(o);
        }
    }

    static void hashes(Out out) {
        for (String t : new String[] {"", "a", "TagA", "TagB", "*", "order-created", "标签", "ü", "🚀", "TagA || TagB", "polygenelubricants",
            "a very long tag ".repeat(8), "中文标签-1", "\u0001", "Aa", "BB"}) {
            JsonObject o = new JsonObject();
            o.addProperty("tag", t);
            o.addProperty("hashCode", t.hashCode());
            o.addProperty("tagsCode", MessageExtBrokerInner.tagsString2tagsCode(TopicFilterType.SINGLE_TAG, t));
            out.list("hashCodes").add(o);
        }
    }
}
