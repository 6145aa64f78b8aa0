package golden;

import com.google.gson.JsonArray;
import com.google.gson.JsonObject;
import java.io.File;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.stream.Stream;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.BoundaryType;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.UtilAll;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageAccessor;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.store.DefaultMessageStore;
import org.apache.rocketmq.store.QueryMessageResult;

/** Fills a running broker by the Java client; then, when it has stopped, makes the fixture and its manifest from its store. */
final class RealStore {
    static final String BROKER = "broker-a";
    static final String[] TOPICS = {"GoldenA", "GoldenB", "GoldenC"};
    static final int[] QUEUES = {4, 2, 1};
    static final String[] TAGS = {"TagA", "TagB", "标签", null, "order-created"};
    static int seq;

    static Message message(String topic, int size) {
        int i = seq++;
        byte[] body = new byte[size];
        for (int j = 0; j < size; j++) body[j] = (byte) (i * 31 + j * 7 + (j >> 5) * 13);
        Message m = new Message(topic, body);
        String tag = TAGS[i % TAGS.length];
        if (tag != null) m.setTags(tag);
        if (i % 3 == 0) m.setKeys("key" + i);
        if (i % 7 == 0) m.setKeys("key" + i + " shared 键");
        if (i % 4 == 1) m.putUserProperty("n", String.valueOf(i));
        m.setFlag(i);
        // fixed ids instead of ones made of this machine's address and process
        MessageAccessor.putProperty(m, "UNIQ_KEY", "0A010203000718B4AAC200001234" + String.format("%04X", i));
        return m;
    }

    static void sent(JsonArray out, String how, Message m, SendResult r) {
        JsonObject o = new JsonObject();
        o.addProperty("how", how);
        o.addProperty("topic", m.getTopic());
        o.addProperty("uniqKey", m.getProperty("UNIQ_KEY"));
        o.addProperty("bodyLength", m.getBody().length);
        o.addProperty("bodyCrc32", Out.crc(m.getBody()));
        if (r != null) {
            o.addProperty("status", r.getSendStatus().name());
            o.addProperty("offsetMsgId", r.getOffsetMsgId());
            o.addProperty("queueId", r.getMessageQueue().getQueueId());
            o.addProperty("queueOffset", r.getQueueOffset());
        }
        out.add(o);
    }

    static void send(String ns, Path file) throws Exception {
        JsonArray out = new JsonArray();
        DefaultMQProducer p = new DefaultMQProducer("golden-producer");
        p.setNamesrvAddr(ns);
        p.setVipChannelEnabled(false);
        p.start();
        String addr = null;
        for (int i = 0; addr == null; i++) {
            try {
                addr = p.getDefaultMQProducerImpl().getMqClientFactory().getMQClientAPIImpl().getDefaultTopicRouteInfoFromNameServer(3000)
                    .getBrokerDatas().get(0).getBrokerAddrs().get(0L);
            } catch (Exception e) {
                if (i > 30) throw e;
                Thread.sleep(500);
            }
        }
        for (int t = 0; t < TOPICS.length; t++) {
            TopicConfig c = new TopicConfig(TOPICS[t], QUEUES[t], QUEUES[t], 6);
            if (t == 1) c.getAttributes().put("+message.type", "DELAY");
            if (t == 2) c.getAttributes().put("+message.type", "TRANSACTION");
            p.getDefaultMQProducerImpl().getMqClientFactory().getMQClientAPIImpl().createTopic(addr, "TBW102", c, 3000);
        }
        int[] sizes = {1, 64, 200, 1000, 16, 2500, 300, 4000, 700, 33};
        for (int i = 0; i < 110; i++) {
            int t = i % 6 < 3 ? 0 : i % 6 < 5 ? 1 : 2;
            Message m = message(TOPICS[t], i == 50 || i == 90 ? 6000 : sizes[i % sizes.length]); // over 4096 the client compresses
            Message copy = new Message(m.getTopic(), m.getBody());
            SendResult r = p.send(m, new MessageQueue(TOPICS[t], BROKER, (i / 6) % QUEUES[t]), 5000);
            MessageAccessor.putProperty(copy, "UNIQ_KEY", m.getProperty("UNIQ_KEY"));
            sent(out, "send", copy, r);
        }
        List<Message> batch = new ArrayList<>();
        for (int i = 0; i < 5; i++) batch.add(message("GoldenA", 40 + i));
        SendResult br = p.send(batch, new MessageQueue("GoldenA", BROKER, 2), 5000);
        for (Message m : batch) sent(out, "batch", m, null);
        out.get(out.size() - 5).getAsJsonObject().addProperty("batchOffsetMsgIds", br.getOffsetMsgId());
        for (int level : new int[] {1, 2}) {
            Message m = message("GoldenB", 50);
            m.setDelayTimeLevel(level);
            sent(out, "delay level " + level, m, p.send(m, new MessageQueue("GoldenB", BROKER, 0), 5000));
        }
        TransactionMQProducer tp = new TransactionMQProducer("golden-transactions");
        tp.setNamesrvAddr(ns);
        tp.setVipChannelEnabled(false);
        tp.setTransactionListener(new TransactionListener() {
            @Override public LocalTransactionState executeLocalTransaction(Message m, Object arg) {
                return (LocalTransactionState) arg;
            }
            @Override public LocalTransactionState checkLocalTransaction(MessageExt m) {
                return LocalTransactionState.UNKNOW;
            }
        });
        tp.start();
        for (LocalTransactionState s : LocalTransactionState.values()) {
            Message m = message("GoldenC", 60);
            sent(out, "transaction " + s, m, tp.sendMessageInTransaction(m, s));
        }
        // one group: everything of GoldenA but one message, which goes through the retry topic
        DefaultMQPushConsumer c = new DefaultMQPushConsumer("golden-consumer");
        c.setNamesrvAddr(ns);
        c.setVipChannelEnabled(false);
        c.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        c.subscribe("GoldenA", "*");
        AtomicBoolean later = new AtomicBoolean(true);
        c.registerMessageListener((MessageListenerConcurrently) (msgs, ctx) ->
            msgs.get(0).getQueueId() == 1 && later.getAndSet(false) ? ConsumeConcurrentlyStatus.RECONSUME_LATER : ConsumeConcurrentlyStatus.CONSUME_SUCCESS);
        c.start();
        Thread.sleep(25000);
        c.shutdown();
        tp.shutdown();
        p.shutdown();
        Files.writeString(file, Out.PRETTY.toJson(out) + "\n");
    }

    static byte[] trim(byte[] b, int unit) {
        int n = b.length;
        while (n > 0 && b[n - 1] == 0) n--;
        return Arrays.copyOf(b, Math.min(b.length, (n + unit - 1) / unit * unit));
    }

    static List<Path> files(Path dir) throws Exception {
        if (!Files.isDirectory(dir)) return List.of();
        try (Stream<Path> s = Files.walk(dir)) {
            return s.filter(Files::isRegularFile).sorted().toList();
        }
    }

    static void collect(Path store, Path sent, Path dir) throws Exception {
        Out out = new Out(dir);
        int segment = 65536;
        out.index.addProperty("mappedFileSizeCommitLog", segment);
        out.index.addProperty("maxHashSlotNum", 100);
        out.index.addProperty("maxIndexNum", 1000);
        out.index.addProperty("note", "files are cut after their last non-zero unit; fullSize is the size the broker had given them. Cleanly stopped: no abort file.");
        out.index.add("sent", Out.PRETTY.fromJson(Files.readString(sent), JsonArray.class));
        for (String top : new String[] {"commitlog", "consumequeue", "index", "config", "checkpoint"}) {
            Path base = store.resolve(top);
            for (Path f : Files.isRegularFile(base) ? List.of(base) : files(base)) {
                String rel = store.relativize(f).toString().replace(File.separatorChar, '/');
                if (rel.endsWith(".bak") || (top.equals("config") && !rel.endsWith(".json"))) continue;
                byte[] b = Files.readAllBytes(f);
                byte[] cut = top.equals("config") ? b : trim(b, top.equals("consumequeue") ? 20 : 4);
                if (top.equals("consumequeue") && cut.length == 0) continue;
                JsonObject e = out.file("files", rel, cut);
                e.addProperty("fullSize", b.length);
            }
        }
        for (Path f : files(store.resolve("commitlog"))) {
            ByteBuffer b = ByteBuffer.wrap(Files.readAllBytes(f));
            long base = Long.parseLong(f.getFileName().toString());
            int pos = 0;
            while (pos + 8 <= b.capacity()) {
                int size = b.getInt(pos), magic = b.getInt(pos + 4);
                if (size == 0) break;
                if (magic == MessageDecoder.BLANK_MAGIC_CODE) {
                    JsonObject o = new JsonObject();
                    o.addProperty("physicalOffset", base + pos);
                    o.addProperty("size", size);
                    out.list("blanks").add(o);
                    break;
                }
                byte[] m = new byte[size];
                b.get(pos, m);
                MessageExt d = MessageDecoder.decode(ByteBuffer.wrap(m), true, false, false);
                JsonObject o = new JsonObject();
                o.addProperty("physicalOffset", d.getCommitLogOffset());
                o.addProperty("size", size);
                o.addProperty("magic", Integer.toHexString(magic));
                o.addProperty("topic", d.getTopic());
                o.addProperty("queueId", d.getQueueId());
                o.addProperty("queueOffset", d.getQueueOffset());
                o.addProperty("flag", d.getFlag());
                o.addProperty("sysFlag", d.getSysFlag());
                o.addProperty("bodyCRC", d.getBodyCRC());
                o.addProperty("bodyLength", d.getBody() == null ? 0 : d.getBody().length);
                o.addProperty("tag", d.getTags());
                o.addProperty("tagHash", d.getTags() == null ? 0 : d.getTags().hashCode());
                o.addProperty("keys", d.getKeys());
                o.addProperty("bornTimestamp", d.getBornTimestamp());
                o.addProperty("bornHost", Messages.host(d.getBornHost()));
                o.addProperty("storeTimestamp", d.getStoreTimestamp());
                o.addProperty("storeHost", Messages.host(d.getStoreHost()));
                o.addProperty("reconsumeTimes", d.getReconsumeTimes());
                o.addProperty("preparedTransactionOffset", d.getPreparedTransactionOffset());
                o.add("properties", Out.value(new TreeMap<>(d.getProperties())));
                out.list("messages").add(o);
                pos += size;
            }
        }
        for (Path f : files(store.resolve("consumequeue"))) {
            ByteBuffer b = ByteBuffer.wrap(trim(Files.readAllBytes(f), 20));
            if (!b.hasRemaining()) continue;
            JsonObject q = new JsonObject();
            q.addProperty("topic", f.getParent().getParent().getFileName().toString());
            q.addProperty("queueId", Integer.parseInt(f.getParent().getFileName().toString()));
            JsonArray a = new JsonArray();
            while (b.hasRemaining()) {
                JsonObject u = new JsonObject();
                u.addProperty("physicalOffset", b.getLong());
                u.addProperty("size", b.getInt());
                u.addProperty("tagsCode", b.getLong());
                a.add(u);
            }
            q.add("units", a);
            out.list("consumeQueues").add(q);
        }
        ask(out, store, segment);
        out.writeIndex("manifest.json");
    }

    /** What Apache's own store says of this directory when it opens it again. */
    static void ask(Out out, Path store, int segment) throws Exception {
        Path copy = Files.createTempDirectory("golden-copy");
        for (Path f : files(store)) {
            Path to = copy.resolve(store.relativize(f));
            if (to.toString().contains("timer")) continue;
            Files.createDirectories(to.getParent());
            Files.copy(f, to);
        }
        DefaultMessageStore s = Messages.store(copy, c -> {
            c.setMappedFileSizeCommitLog(segment);
            c.setMaxIndexNum(1000);
        });
        var running = DefaultMessageStore.class.getDeclaredField("shutdown"); // true until start(), which would open ports
        running.setAccessible(true);
        running.set(s, false);
        JsonObject r = new JsonObject();
        out.index.add("answers", r);
        r.addProperty("minPhyOffset", s.getMinPhyOffset());
        r.addProperty("maxPhyOffset", s.getMaxPhyOffset());
        JsonArray list = out.index.getAsJsonArray("messages");
        long first = list.get(0).getAsJsonObject().get("storeTimestamp").getAsLong();
        long last = list.get(list.size() - 1).getAsJsonObject().get("storeTimestamp").getAsLong();
        JsonArray qs = new JsonArray();
        r.add("queues", qs);
        for (var e : out.index.getAsJsonArray("consumeQueues")) {
            String topic = e.getAsJsonObject().get("topic").getAsString();
            int q = e.getAsJsonObject().get("queueId").getAsInt();
            JsonObject o = new JsonObject();
            o.addProperty("topic", topic);
            o.addProperty("queueId", q);
            o.addProperty("minOffset", s.getMinOffsetInQueue(topic, q));
            o.addProperty("maxOffset", s.getMaxOffsetInQueue(topic, q));
            o.addProperty("earliestStoreTime", s.getEarliestMessageTime(topic, q));
            JsonArray times = new JsonArray();
            o.add("offsetByTime", times);
            List<Long> ask = new ArrayList<>(List.of(0L, first - 1, (first + last) / 2, last + 1));
            int n = e.getAsJsonObject().getAsJsonArray("units").size();
            for (int i : new int[] {0, n / 2, n - 1}) {
                long t = s.lookMessageByOffset(e.getAsJsonObject().getAsJsonArray("units").get(i).getAsJsonObject().get("physicalOffset").getAsLong()).getStoreTimestamp();
                ask.addAll(List.of(t - 1, t, t + 1));
            }
            for (long t : ask) {
                JsonObject x = new JsonObject();
                x.addProperty("timestamp", t);
                x.addProperty("lower", s.getOffsetInQueueByTime(topic, q, t, BoundaryType.LOWER));
                x.addProperty("upper", s.getOffsetInQueueByTime(topic, q, t, BoundaryType.UPPER));
                times.add(x);
            }
            qs.add(o);
        }
        JsonArray keys = new JsonArray();
        r.add("queryMessage", keys);
        for (String[] k : new String[][] {{"GoldenA", "key0"}, {"GoldenA", "shared"}, {"GoldenB", "shared"}, {"GoldenA", "键"}, {"GoldenC", "key5"}, {"GoldenA", "none"},
            {"GoldenA", "0A010203000718B4AAC2000012340000"}}) {
            for (int max : new int[] {1, 32}) {
                QueryMessageResult x = s.queryMessage(k[0], k[1], max, 0, Long.MAX_VALUE);
                JsonObject o = new JsonObject();
                o.addProperty("topic", k[0]);
                o.addProperty("key", k[1]);
                o.addProperty("maxNum", max);
                JsonArray found = new JsonArray();
                for (ByteBuffer b : x.getMessageBufferList()) found.add(b.getLong(28));
                o.add("physicalOffsets", found);
                o.addProperty("indexLastUpdateTimestamp", x.getIndexLastUpdateTimestamp());
                o.addProperty("indexLastUpdatePhyoffset", x.getIndexLastUpdatePhyoffset());
                keys.add(o);
            }
        }
        List<Path> old = new ArrayList<>(files(copy));
        for (Path f : old) Files.delete(f);
    }
}
