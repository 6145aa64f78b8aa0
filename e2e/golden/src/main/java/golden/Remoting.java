package golden;

import com.google.gson.JsonObject;
import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.Supplier;
import org.apache.rocketmq.common.MQVersion;
import org.apache.rocketmq.common.UtilAll;
import org.apache.rocketmq.remoting.CommandCustomHeader;
import org.apache.rocketmq.remoting.protocol.LanguageCode;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;
import org.apache.rocketmq.remoting.protocol.RemotingSerializable;
import org.apache.rocketmq.remoting.protocol.RequestCode;
import org.apache.rocketmq.remoting.protocol.ResponseCode;
import org.apache.rocketmq.remoting.protocol.SerializeType;
import org.apache.rocketmq.remoting.protocol.body.RegisterBrokerBody;
import org.apache.rocketmq.remoting.protocol.header.*;
import org.apache.rocketmq.remoting.protocol.header.namesrv.*;

/** Whole frames as Apache's encoder puts them on the wire, in both header forms. */
final class Remoting {
    static final long T = Bodies.T;

    static void run(Path dir) throws Exception {
        Out out = new Out(dir);
        out.index.addProperty("currentVersion", MQVersion.CURRENT_VERSION);
        out.index.addProperty("currentVersionName", MQVersion.getVersionDesc(MQVersion.CURRENT_VERSION));
        JsonObject langs = new JsonObject();
        for (LanguageCode l : LanguageCode.values()) langs.addProperty(l.name(), l.getCode());
        out.index.add("languages", langs);
        JsonObject versions = new JsonObject();
        for (String v : new String[] {"V3_0_0_SNAPSHOT", "V4_9_3", "V4_9_4", "V4_9_7", "V5_0_0", "V5_1_4", "V5_3_3", "V5_5_0", "HIGHER_VERSION"})
            versions.addProperty(v, MQVersion.Version.valueOf(v).ordinal());
        out.index.add("versions", versions);
        int opaque = 1000;
        for (Map.Entry<String, Supplier<RemotingCommand>> e : frames().entrySet()) {
            opaque++;
            for (SerializeType t : SerializeType.values()) frame(out, e.getKey(), e.getValue(), t, opaque);
        }
        Bodies.write(out);
        out.writeIndex("index.json");
    }

    static RemotingCommand prepare(Supplier<RemotingCommand> s, SerializeType t, int opaque) {
        RemotingCommand c = s.get();
        c.setSerializeTypeCurrentRPC(t);
        c.setOpaque(opaque);
        if (c.getVersion() == 0) c.setVersion(MQVersion.CURRENT_VERSION);
        return c;
    }

    static void frame(Out out, String name, Supplier<RemotingCommand> s, SerializeType t, int opaque) throws Exception {
        RemotingCommand c = prepare(s, t, opaque);
        ByteBuf b = Unpooled.buffer();
        c.fastEncodeHeader(b); // what NettyEncoder does
        if (c.getBody() != null) b.writeBytes(c.getBody());
        byte[] wire = new byte[b.readableBytes()];
        b.readBytes(wire);
        ByteBuffer eb = prepare(s, t, opaque).encode();
        byte[] plain = new byte[eb.remaining()];
        eb.get(plain);

        String form = t == SerializeType.JSON ? "json" : "rocketmq";
        JsonObject e = out.file("frames", "frames/" + name + "." + form + ".bin", wire);
        RemotingCommand v = prepare(s, t, opaque);
        v.makeCustomHeaderToNet();
        e.addProperty("name", name);
        e.addProperty("serialize", form);
        e.addProperty("code", v.getCode());
        RemotingCommand back = RemotingCommand.decode(ByteBuffer.wrap(wire, 4, wire.length - 4));
        e.addProperty("codeAsApacheDecodesIt", back.getCode());
        e.addProperty("language", v.getLanguage().name());
        e.addProperty("version", v.getVersion());
        e.addProperty("opaque", v.getOpaque());
        e.addProperty("flag", v.getFlag());
        e.addProperty("remark", v.getRemark());
        e.add("extFields", Out.value(v.getExtFields() == null ? Map.of() : new TreeMap<>(v.getExtFields())));
        e.addProperty("bodySize", v.getBody() == null ? 0 : v.getBody().length);
        if (v.getBody() != null) e.addProperty("bodyCrc32", Out.crc(v.getBody()));
        if (!Arrays.equals(wire, plain)) {
            JsonObject p = out.file("frames", "frames/" + name + "." + form + ".plain.bin", plain);
            p.addProperty("name", name + ".plain");
            p.addProperty("note", "RemotingCommand.encode() of the same command: same fields, other order");
            for (String k : new String[] {"serialize", "code", "codeAsApacheDecodesIt", "language", "version", "opaque", "flag", "remark", "extFields", "bodySize", "bodyCrc32"})
                if (e.has(k)) p.add(k, e.get(k));
        }
    }

    static RemotingCommand req(int code, CommandCustomHeader h, byte[] body) {
        RemotingCommand c = RemotingCommand.createRequestCommand(code, h);
        c.setBody(body);
        return c;
    }

    static RemotingCommand resp(int code, String remark, CommandCustomHeader h, byte[] body) {
        RemotingCommand c = h == null ? RemotingCommand.createResponseCommand(code, remark) : RemotingCommand.createResponseCommandWithHeader(code, h);
        c.setRemark(remark);
        c.setBody(body);
        return c;
    }

    static SendMessageRequestHeader send(boolean full) {
        SendMessageRequestHeader h = new SendMessageRequestHeader();
        h.setProducerGroup("p-one");
        h.setTopic("TopicA");
        h.setDefaultTopic("TBW102");
        h.setDefaultTopicQueueNums(4);
        h.setQueueId(3);
        h.setSysFlag(0);
        h.setBornTimestamp(T);
        h.setFlag(17);
        if (full) {
            h.setProperties("KEYS\u0001k1 k2\u0002TAGS\u0001标签\u0002UNIQ_KEY\u0001" + Messages.UNIQ + "\u0002WAIT\u0001true\u0002");
            h.setReconsumeTimes(2);
            h.setUnitMode(true);
            h.setMaxReconsumeTimes(16);
            h.setBatch(false);
            h.setBrokerName("broker-a");
        }
        return h;
    }

    static PullMessageRequestHeader pull(boolean full) {
        PullMessageRequestHeader h = new PullMessageRequestHeader();
        h.setConsumerGroup("g-one");
        h.setTopic("TopicA");
        h.setQueueId(1);
        h.setQueueOffset(42L);
        h.setMaxMsgNums(32);
        h.setSysFlag(7);
        h.setCommitOffset(40L);
        h.setSuspendTimeoutMillis(15000L);
        h.setSubVersion(T);
        if (full) {
            h.setSubscription("TagA || TagB");
            h.setExpressionType("TAG");
            h.setMaxMsgBytes(262144);
            h.setRequestSource(1);
            h.setProxyFrowardClientId("10.1.2.3@1");
            h.setBrokerName("broker-a");
            h.setNamespace("ns1");
            h.setNamespaced(true);
            h.setOneway(false);
            h.setLo(false);
        }
        return h;
    }

    static RegisterBrokerRequestHeader register(boolean compressed, byte[] body) {
        RegisterBrokerRequestHeader h = new RegisterBrokerRequestHeader();
        h.setBrokerName("broker-a");
        h.setBrokerAddr("10.1.0.0:10911");
        h.setClusterName("DefaultCluster");
        h.setHaServerAddr("10.1.0.0:10912");
        h.setBrokerId(0L);
        h.setHeartbeatTimeoutMillis(120000L);
        h.setEnableActingMaster(false);
        h.setCompressed(compressed);
        h.setBodyCrc32(UtilAll.crc32(body));
        return h;
    }

    static Map<String, Supplier<RemotingCommand>> frames() {
        Map<String, Supplier<RemotingCommand>> m = new LinkedHashMap<>();
        byte[] hello = Out.utf8("hello, 世界");
        Map<String, Object> bodies = Bodies.all();
        m.put("send_message", () -> req(RequestCode.SEND_MESSAGE, send(true), hello));
        m.put("send_message_min", () -> req(RequestCode.SEND_MESSAGE, send(false), hello));
        m.put("send_message_v2", () -> req(RequestCode.SEND_MESSAGE_V2, SendMessageRequestHeaderV2.createSendMessageRequestHeaderV2(send(true)), hello));
        m.put("send_message_v2_min", () -> req(RequestCode.SEND_MESSAGE_V2, SendMessageRequestHeaderV2.createSendMessageRequestHeaderV2(send(false)), hello));
        m.put("send_batch_message", () -> {
            SendMessageRequestHeader h = send(true);
            h.setBatch(true);
            return req(RequestCode.SEND_BATCH_MESSAGE, SendMessageRequestHeaderV2.createSendMessageRequestHeaderV2(h), Messages.batchBody());
        });
        m.put("send_message_response", () -> {
            SendMessageResponseHeader h = new SendMessageResponseHeader();
            h.setMsgId("0A01020300002A9F0000000000000400");
            h.setQueueId(3);
            h.setQueueOffset(42L);
            h.setTransactionId("tx-1");
            h.setBatchUniqId("b-1");
            h.setRecallHandle("handle");
            RemotingCommand c = resp(ResponseCode.SUCCESS, null, h, null);
            c.addExtField("MSG_REGION", "DefaultRegion");
            c.addExtField("TRACE_ON", "true");
            return c;
        });
        m.put("pull_message", () -> req(RequestCode.PULL_MESSAGE, pull(true), null));
        m.put("pull_message_min", () -> req(RequestCode.PULL_MESSAGE, pull(false), null));
        m.put("pull_message_response", () -> {
            PullMessageResponseHeader h = new PullMessageResponseHeader();
            h.setSuggestWhichBrokerId(0L);
            h.setNextBeginOffset(43L);
            h.setMinOffset(0L);
            h.setMaxOffset(100L);
            h.setOffsetDelta(0L);
            h.setTopicSysFlag(0);
            h.setGroupSysFlag(0);
            return resp(ResponseCode.SUCCESS, "FOUND", h, hello);
        });
        m.put("pull_message_not_found", () -> {
            PullMessageResponseHeader h = new PullMessageResponseHeader();
            h.setSuggestWhichBrokerId(0L);
            h.setNextBeginOffset(42L);
            h.setMinOffset(0L);
            h.setMaxOffset(42L);
            return resp(ResponseCode.PULL_NOT_FOUND, "OFFSET_OVERFLOW_ONE", h, null);
        });
        m.put("heart_beat", () -> req(RequestCode.HEART_BEAT, null, RemotingSerializable.encode(bodies.get("heartbeat"))));
        m.put("query_consumer_offset", () -> {
            QueryConsumerOffsetRequestHeader h = new QueryConsumerOffsetRequestHeader();
            h.setConsumerGroup("g-one");
            h.setTopic("TopicA");
            h.setQueueId(1);
            h.setSetZeroIfNotFound(false);
            h.setBrokerName("broker-a");
            return req(RequestCode.QUERY_CONSUMER_OFFSET, h, null);
        });
        m.put("query_consumer_offset_response", () -> {
            QueryConsumerOffsetResponseHeader h = new QueryConsumerOffsetResponseHeader();
            h.setOffset(Long.MAX_VALUE);
            return resp(ResponseCode.SUCCESS, null, h, null);
        });
        m.put("update_consumer_offset_oneway", () -> {
            UpdateConsumerOffsetRequestHeader h = new UpdateConsumerOffsetRequestHeader();
            h.setConsumerGroup("g-one");
            h.setTopic("TopicA");
            h.setQueueId(1);
            h.setCommitOffset(43L);
            RemotingCommand c = req(RequestCode.UPDATE_CONSUMER_OFFSET, h, null);
            c.markOnewayRPC();
            return c;
        });
        m.put("get_route", () -> {
            GetRouteInfoRequestHeader h = new GetRouteInfoRequestHeader();
            h.setTopic("TopicA");
            return req(RequestCode.GET_ROUTEINFO_BY_TOPIC, h, null);
        });
        m.put("get_route_standard", () -> {
            GetRouteInfoRequestHeader h = new GetRouteInfoRequestHeader();
            h.setTopic("TopicA");
            h.setAcceptStandardJsonOnly(true);
            return req(RequestCode.GET_ROUTEINFO_BY_TOPIC, h, null);
        });
        m.put("get_route_response_fastjson", () -> resp(ResponseCode.SUCCESS, null, null, Bodies.route(3, false).encode()));
        m.put("get_route_response_standard", () -> resp(ResponseCode.SUCCESS, null, null, Bodies.standard(Bodies.route(3, false))));
        for (boolean z : new boolean[] {false, true}) m.put(z ? "register_broker_compressed" : "register_broker", () -> {
            RegisterBrokerBody b = Bodies.registerBrokerBody(false);
            byte[] bytes = b.encode(z);
            return req(RequestCode.REGISTER_BROKER, register(z, bytes), bytes);
        });
        m.put("register_broker_response", () -> {
            RegisterBrokerResponseHeader h = new RegisterBrokerResponseHeader();
            h.setHaServerAddr("10.1.0.0:10912");
            h.setMasterAddr("10.1.0.0:10911");
            return resp(ResponseCode.SUCCESS, null, h, RemotingSerializable.encode(bodies.get("kv_table_empty")));
        });
        m.put("query_data_version", () -> {
            QueryDataVersionRequestHeader h = new QueryDataVersionRequestHeader();
            h.setBrokerName("broker-a");
            h.setBrokerAddr("10.1.0.0:10911");
            h.setClusterName("DefaultCluster");
            h.setBrokerId(0L);
            return req(RequestCode.QUERY_DATA_VERSION, h, Bodies.dataVersion().encode());
        });
        m.put("get_consumer_list", () -> {
            GetConsumerListByGroupRequestHeader h = new GetConsumerListByGroupRequestHeader();
            h.setConsumerGroup("g-one");
            return req(RequestCode.GET_CONSUMER_LIST_BY_GROUP, h, null);
        });
        m.put("get_consumer_list_response", () -> resp(ResponseCode.SUCCESS, null, null, RemotingSerializable.encode(bodies.get("consumer_list"))));
        m.put("lock_batch_mq", () -> req(RequestCode.LOCK_BATCH_MQ, new LockBatchMqRequestHeader(), RemotingSerializable.encode(bodies.get("lock_batch_request"))));
        m.put("lock_batch_mq_response", () -> resp(ResponseCode.SUCCESS, null, null, RemotingSerializable.encode(bodies.get("lock_batch_response"))));
        m.put("consumer_send_msg_back", () -> {
            ConsumerSendMsgBackRequestHeader h = new ConsumerSendMsgBackRequestHeader();
            h.setOffset(1024L);
            h.setGroup("g-one");
            h.setDelayLevel(3);
            h.setOriginMsgId(Messages.UNIQ);
            h.setOriginTopic("TopicA");
            h.setUnitMode(false);
            h.setMaxReconsumeTimes(16);
            h.setBrokerName("broker-a");
            return req(RequestCode.CONSUMER_SEND_MSG_BACK, h, null);
        });
        m.put("end_transaction_oneway", () -> {
            EndTransactionRequestHeader h = new EndTransactionRequestHeader();
            h.setTopic("TopicA");
            h.setProducerGroup("p-one");
            h.setTranStateTableOffset(5L);
            h.setCommitLogOffset(2048L);
            h.setCommitOrRollback(8);
            h.setFromTransactionCheck(false);
            h.setMsgId(Messages.UNIQ);
            h.setTransactionId("tx-1");
            RemotingCommand c = req(RequestCode.END_TRANSACTION, h, null);
            c.markOnewayRPC();
            return c;
        });
        m.put("pop_message", () -> {
            PopMessageRequestHeader h = new PopMessageRequestHeader();
            h.setConsumerGroup("g-one");
            h.setTopic("TopicA");
            h.setQueueId(-1);
            h.setMaxMsgNums(32);
            h.setInvisibleTime(60000);
            h.setPollTime(15000);
            h.setBornTime(T);
            h.setInitMode(0);
            h.setExpType("TAG");
            h.setExp("*");
            h.setOrder(false);
            h.setAttemptId("attempt-1");
            return req(RequestCode.POP_MESSAGE, h, null);
        });
        m.put("response_remark_null", () -> resp(ResponseCode.SUCCESS, null, null, null));
        m.put("response_remark_empty", () -> resp(ResponseCode.SUCCESS, "", null, null));
        m.put("response_remark_unicode", () -> resp(ResponseCode.TOPIC_NOT_EXIST, "主题不存在: ünï \"q\" \\ \n\t \u0001 🚀 </end>", null, null));
        m.put("ext_fields_unicode", () -> {
            RemotingCommand c = RemotingCommand.createRequestCommand(RequestCode.GET_ROUTEINFO_BY_TOPIC, null);
            c.addExtField("键", "值 🚀");
            c.addExtField("empty", "");
            c.addExtField("control", "a\u0001b\u0002c\n");
            return c;
        });
        m.put("other_language_and_version", () -> {
            RemotingCommand c = RemotingCommand.createRequestCommand(RequestCode.GET_BROKER_CLUSTER_INFO, null);
            c.setLanguage(LanguageCode.GO);
            c.setVersion(MQVersion.Version.V4_9_3.ordinal());
            return c;
        });
        return m;
    }
}
