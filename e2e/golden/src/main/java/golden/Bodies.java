package golden;

import com.alibaba.fastjson2.JSONWriter;
import com.google.gson.JsonObject;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentMap;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.rocketmq.common.MQVersion;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.TopicFilterType;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.common.message.MessageQueueAssignment;
import org.apache.rocketmq.common.message.MessageRequestMode;
import org.apache.rocketmq.remoting.protocol.DataVersion;
import org.apache.rocketmq.remoting.protocol.LanguageCode;
import org.apache.rocketmq.remoting.protocol.RemotingSerializable;
import org.apache.rocketmq.remoting.protocol.admin.ConsumeStats;
import org.apache.rocketmq.remoting.protocol.admin.OffsetWrapper;
import org.apache.rocketmq.remoting.protocol.admin.TopicOffset;
import org.apache.rocketmq.remoting.protocol.admin.TopicStatsTable;
import org.apache.rocketmq.remoting.protocol.body.*;
import org.apache.rocketmq.remoting.protocol.header.GetConsumerListByGroupResponseBody;
import org.apache.rocketmq.remoting.protocol.heartbeat.ConsumeType;
import org.apache.rocketmq.remoting.protocol.heartbeat.ConsumerData;
import org.apache.rocketmq.remoting.protocol.heartbeat.HeartbeatData;
import org.apache.rocketmq.remoting.protocol.heartbeat.MessageModel;
import org.apache.rocketmq.remoting.protocol.heartbeat.ProducerData;
import org.apache.rocketmq.remoting.protocol.heartbeat.SubscriptionData;
import org.apache.rocketmq.remoting.protocol.route.BrokerData;
import org.apache.rocketmq.remoting.protocol.route.QueueData;
import org.apache.rocketmq.remoting.protocol.route.TopicRouteData;
import org.apache.rocketmq.remoting.protocol.statictopic.TopicQueueMappingInfo;
import org.apache.rocketmq.remoting.protocol.subscription.CustomizedRetryPolicy;
import org.apache.rocketmq.remoting.protocol.subscription.ExponentialRetryPolicy;
import org.apache.rocketmq.remoting.protocol.subscription.GroupRetryPolicy;
import org.apache.rocketmq.remoting.protocol.subscription.GroupRetryPolicyType;
import org.apache.rocketmq.remoting.protocol.subscription.SimpleSubscriptionData;
import org.apache.rocketmq.remoting.protocol.subscription.SubscriptionGroupConfig;

/** One or more samples of every body that crosses the wire. */
final class Bodies {
    static final long T = 1700000000000L;

    static void write(Out out) throws Exception {
        for (Map.Entry<String, Object> e : all().entrySet()) {
            Object o = e.getValue();
            one(out, e.getKey() + ".json", "RemotingSerializable.encode", o, RemotingSerializable.encode(o));
        }
        for (String n : new String[] {"topic_route_data", "topic_route_data_many", "topic_route_data_empty", "topic_route_data_static"}) {
            TopicRouteData r = (TopicRouteData) all().get(n);
            one(out, n + ".standard.json", "encode(BrowserCompatible, MapSortField), as the name server does for acceptStandardJsonOnly or a version >= V4_9_4",
                r, standard(r));
        }
        for (String n : new String[] {"topic_config_serialize_wrapper", "subscription_group_wrapper", "consumer_offset_serialize_wrapper"}) {
            RemotingSerializable r = (RemotingSerializable) all().get(n);
            one(out, n + ".pretty.json", "toJson(true), the form of the files under config/", r, Out.utf8(r.toJson(true)));
        }
        RegisterBrokerBody rb = registerBrokerBody(false), rbm = registerBrokerBody(true);
        one(out, "register_broker_body.json", "RegisterBrokerBody.encode(false)", rb, rb.encode(false));
        one(out, "register_broker_body.deflate.bin", "RegisterBrokerBody.encode(true)", rb, rb.encode(true));
        one(out, "register_broker_body_mapping.json", "RegisterBrokerBody.encode(false)", rbm, rbm.encode(false));
        one(out, "register_broker_body_mapping.deflate.bin", "RegisterBrokerBody.encode(true)", rbm, rbm.encode(true));
        for (TopicConfig t : topicConfigs()) {
            JsonObject x = new JsonObject();
            x.addProperty("encoded", t.encode());
            x.add("value", Out.value(t));
            out.list("topicConfigEncode").add(x);
        }
    }

    static byte[] standard(TopicRouteData r) {
        return r.encode(JSONWriter.Feature.BrowserCompatible, JSONWriter.Feature.MapSortField);
    }

    static void one(Out out, String file, String how, Object o, byte[] bytes) throws Exception {
        JsonObject e = out.file("bodies", "bodies/" + file, bytes);
        e.addProperty("class", o.getClass().getSimpleName());
        e.addProperty("how", how);
        e.addProperty("crc32", Out.crc(bytes));
        e.add("value", Out.value(o));
    }

    static Map<String, Object> all() {
        Map<String, Object> m = new LinkedHashMap<>();
        m.put("heartbeat", heartbeat());
        HeartbeatData h = new HeartbeatData();
        h.setClientID("10.1.2.3@7");
        m.put("heartbeat_empty", h);
        HeartbeatData f = new HeartbeatData();
        f.setClientID("10.1.2.3@7");
        f.setHeartbeatFingerprint(heartbeat().computeHeartbeatFingerprint());
        f.setWithoutSub(true);
        m.put("heartbeat_v2_fingerprint_only", f);

        m.put("topic_route_data", route(1, false));
        m.put("topic_route_data_many", route(3, false));
        m.put("topic_route_data_static", route(2, true));
        m.put("topic_route_data_empty", new TopicRouteData());

        GetConsumerListByGroupResponseBody cl = new GetConsumerListByGroupResponseBody();
        cl.setConsumerIdList(List.of("10.1.2.3@1#1", "10.1.2.4@2#2"));
        m.put("consumer_list", cl);
        GetConsumerListByGroupResponseBody cl0 = new GetConsumerListByGroupResponseBody();
        cl0.setConsumerIdList(new ArrayList<>());
        m.put("consumer_list_empty", cl0);

        LockBatchRequestBody lq = new LockBatchRequestBody();
        lq.setConsumerGroup("g-order");
        lq.setClientId("10.1.2.3@1");
        lq.setMqSet(queues());
        m.put("lock_batch_request", lq);
        LockBatchResponseBody lr = new LockBatchResponseBody();
        lr.setLockOKMQSet(queues());
        m.put("lock_batch_response", lr);
        m.put("lock_batch_response_empty", new LockBatchResponseBody());
        UnlockBatchRequestBody uq = new UnlockBatchRequestBody();
        uq.setConsumerGroup("g-order");
        uq.setClientId("10.1.2.3@1");
        uq.setOnlyThisBroker(true);
        uq.setMqSet(queues());
        m.put("unlock_batch_request", uq);

        TopicStatsTable ts = new TopicStatsTable();
        int i = 0;
        for (MessageQueue q : queues()) {
            TopicOffset o = new TopicOffset();
            o.setMinOffset(i);
            o.setMaxOffset(100L + i);
            o.setLastUpdateTimestamp(T + i++);
            ts.getOffsetTable().put(q, o);
        }
        m.put("topic_stats_table", ts);
        m.put("topic_stats_table_empty", new TopicStatsTable());

        m.put("consume_stats", consumeStats());
        m.put("consume_stats_empty", new ConsumeStats());
        ConsumeStatsList csl = new ConsumeStatsList();
        csl.setBrokerAddr("10.1.2.3:10911");
        csl.setTotalDiff(42);
        csl.setTotalInflightDiff(7);
        Map<String, List<ConsumeStats>> per = new HashMap<>();
        per.put("g-one", new ArrayList<>(List.of(consumeStats())));
        csl.getConsumeStatsList().add(per);
        m.put("consume_stats_list", csl);

        ClusterInfo ci = new ClusterInfo();
        ci.setClusterAddrTable(new HashMap<>(Map.of("DefaultCluster", new LinkedHashSet<>(List.of("broker-a", "broker-b")))));
        Map<String, BrokerData> bt = new HashMap<>();
        bt.put("broker-a", broker("broker-a", 1, true));
        bt.put("broker-b", broker("broker-b", 2, false));
        ci.setBrokerAddrTable(bt);
        m.put("cluster_info", ci);
        m.put("cluster_info_empty", new ClusterInfo());

        KVTable kv = new KVTable();
        kv.getTable().put("bootTimestamp", "1700000000000");
        kv.getTable().put("brokerVersionDesc", "V5_5_0");
        kv.getTable().put("note", "a \"quoted\" \\ value, 中文, tab\t");
        m.put("kv_table", kv);
        m.put("kv_table_empty", new KVTable());

        TopicList tl = new TopicList();
        tl.setTopicList(new LinkedHashSet<>(List.of("TopicA", "TopicB", "%RETRY%g-one")));
        m.put("topic_list", tl);
        TopicList tl2 = new TopicList();
        tl2.setBrokerAddr("10.1.2.3:10911");
        m.put("topic_list_broker_addr", tl2);

        TopicConfigSerializeWrapper tw = new TopicConfigSerializeWrapper();
        for (TopicConfig t : topicConfigs()) tw.getTopicConfigTable().put(t.getTopicName(), t);
        tw.setDataVersion(dataVersion());
        m.put("topic_config_serialize_wrapper", tw);
        for (TopicConfig t : topicConfigs()) m.put("topic_config_" + t.getTopicName().replaceAll("\\W", "_"), t);
        m.put("create_topic_list_request", new CreateTopicListRequestBody(topicConfigs()));

        SubscriptionGroupWrapper sw = new SubscriptionGroupWrapper();
        for (SubscriptionGroupConfig g : groups()) sw.getSubscriptionGroupTable().put(g.getGroupName(), g);
        ConcurrentMap<String, ConcurrentMap<String, Integer>> forbidden = new ConcurrentHashMap<>();
        forbidden.put("g-one", new ConcurrentHashMap<>(Map.of("TopicA", 3)));
        sw.setForbiddenTable(forbidden);
        sw.setDataVersion(dataVersion());
        m.put("subscription_group_wrapper", sw);
        for (SubscriptionGroupConfig g : groups()) m.put("subscription_group_config_" + g.getGroupName().replaceAll("\\W", "_"), g);
        m.put("subscription_group_list", new SubscriptionGroupList(groups()));

        ConsumerConnection cc = new ConsumerConnection();
        cc.setConnectionSet(connections());
        cc.setConsumeType(ConsumeType.CONSUME_PASSIVELY);
        cc.setMessageModel(MessageModel.CLUSTERING);
        cc.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        for (SubscriptionData s : subscriptions()) cc.getSubscriptionTable().put(s.getTopic(), s);
        m.put("consumer_connection", cc);
        m.put("consumer_connection_empty", new ConsumerConnection());
        ProducerConnection pc = new ProducerConnection();
        pc.setConnectionSet(connections());
        m.put("producer_connection", pc);

        CheckClientRequestBody ck = new CheckClientRequestBody();
        ck.setClientId("10.1.2.3@1");
        ck.setGroup("g-one");
        ck.setNamespace("ns1");
        ck.setSubscriptionData(sql());
        m.put("check_client_request", ck);

        QueryAssignmentRequestBody qa = new QueryAssignmentRequestBody();
        qa.setTopic("TopicA");
        qa.setConsumerGroup("g-one");
        qa.setClientId("10.1.2.3@1");
        qa.setStrategyName("AVG");
        qa.setMessageModel(MessageModel.CLUSTERING);
        m.put("query_assignment_request", qa);
        QueryAssignmentResponseBody qr = new QueryAssignmentResponseBody();
        Set<MessageQueueAssignment> as = new LinkedHashSet<>();
        as.add(assignment(new MessageQueue("TopicA", "broker-a", 0), MessageRequestMode.PULL, null));
        as.add(assignment(new MessageQueue("TopicA", "broker-a", -1), MessageRequestMode.POP, Map.of("k", "v")));
        qr.setMessageQueueAssignments(as);
        m.put("query_assignment_response", qr);
        SetMessageRequestModeRequestBody sm = new SetMessageRequestModeRequestBody();
        sm.setTopic("TopicA");
        sm.setConsumerGroup("g-one");
        sm.setMode(MessageRequestMode.POP);
        sm.setPopShareQueueNum(3);
        m.put("set_message_request_mode", sm);

        Map<String, List<ProducerInfo>> pm = new HashMap<>();
        pm.put("p-one", new ArrayList<>(List.of(new ProducerInfo("10.1.2.3@1", "10.1.2.3:40000", LanguageCode.JAVA, MQVersion.CURRENT_VERSION, T))));
        m.put("producer_table_info", new ProducerTableInfo(pm));
        GroupList gl = new GroupList();
        gl.setGroupList(new LinkedHashSet<>(List.of("g-one", "g-two")));
        m.put("group_list", gl);
        m.put("data_version", dataVersion());

        ResetOffsetBody ro = new ResetOffsetBody();
        long n = 5;
        Map<MessageQueue, Long> offsets = new LinkedHashMap<>();
        for (MessageQueue q : queues()) offsets.put(q, n++);
        ro.setOffsetTable(offsets);
        m.put("reset_offset_body", ro);
        GetConsumerStatusBody gs = new GetConsumerStatusBody();
        gs.setMessageQueueTable(offsets);
        gs.setConsumerTable(new HashMap<>(Map.of("10.1.2.3@1", offsets)));
        m.put("get_consumer_status_body", gs);
        ConsumerOffsetSerializeWrapper co = new ConsumerOffsetSerializeWrapper();
        co.getOffsetTable().put("TopicA@g-one", new ConcurrentHashMap<>(Map.of(0, 10L, 1, 11L)));
        co.setDataVersion(dataVersion());
        m.put("consumer_offset_serialize_wrapper", co);
        QueueTimeSpan sp = new QueueTimeSpan();
        sp.setMessageQueue(new MessageQueue("TopicA", "broker-a", 0));
        sp.setMinTimeStamp(T);
        sp.setMaxTimeStamp(T + 9);
        sp.setConsumeTimeStamp(T + 4);
        sp.setDelayTime(5);
        QueryConsumeTimeSpanBody ct = new QueryConsumeTimeSpanBody();
        ct.setConsumeTimeSpanSet(new ArrayList<>(List.of(sp)));
        m.put("query_consume_time_span", ct);
        BrokerStatsItem it = new BrokerStatsItem();
        it.setSum(600);
        it.setTps(10.5);
        it.setAvgpt(0.25);
        BrokerStatsData bs = new BrokerStatsData();
        bs.setStatsMinute(it);
        bs.setStatsHour(new BrokerStatsItem());
        bs.setStatsDay(new BrokerStatsItem());
        m.put("broker_stats_data", bs);
        QuerySubscriptionResponseBody qs = new QuerySubscriptionResponseBody();
        qs.setGroup("g-one");
        qs.setTopic("TopicA");
        qs.setSubscriptionData(subscriptions().iterator().next());
        m.put("query_subscription_response", qs);
        ConsumeQueueData cd = new ConsumeQueueData();
        cd.setPhysicOffset(1024);
        cd.setPhysicSize(200);
        cd.setTagsCode("TagA".hashCode());
        cd.setEval(true);
        QueryConsumeQueueResponseBody cq = new QueryConsumeQueueResponseBody();
        cq.setMaxQueueIndex(9);
        cq.setQueueData(new ArrayList<>(List.of(cd)));
        cq.setSubscriptionData(subscriptions().iterator().next());
        cq.setFilterData("filter");
        m.put("query_consume_queue_response", cq);
        ConsumeMessageDirectlyResult dr = new ConsumeMessageDirectlyResult();
        dr.setConsumeResult(CMResult.CR_SUCCESS);
        dr.setSpentTimeMills(3);
        m.put("consume_message_directly_result", dr);
        ConsumerRunningInfo ri = new ConsumerRunningInfo();
        Properties p = new Properties();
        p.put("PROP_CLIENT_VERSION", "V5_5_0");
        p.put("PROP_CONSUME_TYPE", "CONSUME_PASSIVELY");
        ri.setProperties(p);
        ri.setSubscriptionSet(new TreeSet<>(subscriptions()));
        TreeMap<MessageQueue, ProcessQueueInfo> mq = new TreeMap<>();
        for (MessageQueue q : queues()) mq.put(q, new ProcessQueueInfo());
        ri.setMqTable(mq);
        TreeMap<String, ConsumeStatus> st = new TreeMap<>();
        st.put("TopicA", new ConsumeStatus());
        ri.setStatusTable(st);
        ri.setJstack("\"main\" RUNNABLE\n\tat x.Y.z(Y.java:1)\n");
        m.put("consumer_running_info", ri);
        BatchAck ba = new BatchAck();
        ba.setConsumerGroup("g-one");
        ba.setTopic("TopicA");
        ba.setRetry("0");
        ba.setStartOffset(100);
        ba.setQueueId(1);
        ba.setReviveQueueId(3);
        ba.setPopTime(T);
        ba.setInvisibleTime(60000);
        BitSet bits = new BitSet();
        bits.set(0);
        bits.set(3);
        bits.set(70);
        ba.setBitSet(bits);
        BatchAckMessageRequestBody bb = new BatchAckMessageRequestBody();
        bb.setBrokerName("broker-a");
        bb.setAcks(new ArrayList<>(List.of(ba)));
        m.put("batch_ack_request", bb);
        m.put("sync_state_set", new SyncStateSet(new TreeSet<>(Set.of(1L, 2L, 3L)), 4));
        BrokerMemberGroup bm = new BrokerMemberGroup("DefaultCluster", "broker-a");
        bm.setBrokerAddrs(new HashMap<>(Map.of(0L, "10.1.2.3:10911", 1L, "10.1.2.4:10911")));
        m.put("broker_member_group", bm);
        GetBrokerMemberGroupResponseBody gb = new GetBrokerMemberGroupResponseBody();
        gb.setBrokerMemberGroup(bm);
        m.put("get_broker_member_group_response", gb);
        m.put("elect_master_response", new ElectMasterResponseBody(bm, new TreeSet<>(Set.of(1L, 3L))));
        return m;
    }

    static MessageQueueAssignment assignment(MessageQueue q, MessageRequestMode mode, Map<String, String> attachments) {
        MessageQueueAssignment a = new MessageQueueAssignment();
        a.setMessageQueue(q);
        a.setMode(mode);
        a.setAttachments(attachments);
        return a;
    }

    static Set<MessageQueue> queues() {
        return new LinkedHashSet<>(List.of(new MessageQueue("TopicA", "broker-a", 0), new MessageQueue("TopicA", "broker-a", 1),
            new MessageQueue("%RETRY%g-one", "broker-b", 0)));
    }

    static ConsumeStats consumeStats() {
        ConsumeStats c = new ConsumeStats();
        c.setConsumeTps(12.5);
        int i = 0;
        for (MessageQueue q : queues()) {
            OffsetWrapper o = new OffsetWrapper();
            o.setBrokerOffset(100 + i);
            o.setConsumerOffset(90);
            o.setPullOffset(95);
            o.setLastTimestamp(T + i++);
            c.getOffsetTable().put(q, o);
        }
        return c;
    }

    static DataVersion dataVersion() {
        DataVersion d = new DataVersion();
        d.setStateVersion(3);
        d.setTimestamp(T);
        d.setCounter(new AtomicLong(7));
        return d;
    }

    static List<TopicConfig> topicConfigs() {
        TopicConfig a = new TopicConfig("TopicA", 8, 8);
        TopicConfig b = new TopicConfig("TopicB", 4, 16, 4, 2);
        b.setOrder(true);
        b.setTopicFilterType(TopicFilterType.MULTI_TAG);
        TopicConfig c = new TopicConfig("%RETRY%g-one", 1, 1, 6);
        c.getAttributes().put("message.type", "FIFO");
        c.getAttributes().put("cleanup.policy", "DELETE");
        return new ArrayList<>(List.of(a, b, c));
    }

    static List<SubscriptionGroupConfig> groups() {
        SubscriptionGroupConfig a = new SubscriptionGroupConfig();
        a.setGroupName("g-one");
        SubscriptionGroupConfig b = new SubscriptionGroupConfig();
        b.setGroupName("g-two");
        b.setConsumeEnable(false);
        b.setConsumeFromMinEnable(false);
        b.setConsumeBroadcastEnable(false);
        b.setConsumeMessageOrderly(true);
        b.setRetryQueueNums(2);
        b.setRetryMaxTimes(3);
        b.setBrokerId(1);
        b.setWhichBrokerWhenConsumeSlowly(2);
        b.setNotifyConsumerIdsChangedEnable(false);
        b.setGroupSysFlag(1);
        b.setConsumeTimeoutMinute(5);
        GroupRetryPolicy p = new GroupRetryPolicy();
        p.setType(GroupRetryPolicyType.EXPONENTIAL);
        p.setExponentialRetryPolicy(new ExponentialRetryPolicy(5000, 7200000, 2));
        b.setGroupRetryPolicy(p);
        b.setSubscriptionDataSet(new LinkedHashSet<>(List.of(new SimpleSubscriptionData("TopicA", "TAG", "TagA||TagB", 7))));
        b.getAttributes().put("priority.factor", "3");
        SubscriptionGroupConfig c = new SubscriptionGroupConfig();
        c.setGroupName("g-custom");
        GroupRetryPolicy q = new GroupRetryPolicy();
        q.setType(GroupRetryPolicyType.CUSTOMIZED);
        q.setCustomizedRetryPolicy(new CustomizedRetryPolicy(new long[] {1000, 5000, 10000}));
        c.setGroupRetryPolicy(q);
        return new ArrayList<>(List.of(a, b, c));
    }

    static HashSet<Connection> connections() {
        HashSet<Connection> s = new LinkedHashSet<>();
        int i = 1;
        for (LanguageCode l : new LanguageCode[] {LanguageCode.JAVA, LanguageCode.RUST}) {
            Connection c = new Connection();
            c.setClientId("10.1.2." + i + "@" + i);
            c.setClientAddr("10.1.2." + i + ":4000" + i++);
            c.setLanguage(l);
            c.setVersion(MQVersion.CURRENT_VERSION);
            s.add(c);
        }
        return s;
    }

    static SubscriptionData sql() {
        SubscriptionData s = new SubscriptionData("TopicB", "a > 5 AND b = 'x'");
        s.setExpressionType("SQL92");
        s.setSubVersion(T + 1);
        return s;
    }

    static Set<SubscriptionData> subscriptions() {
        SubscriptionData a = new SubscriptionData("TopicA", "TagA || TagB");
        a.setSubVersion(T);
        a.setTagsSet(new LinkedHashSet<>(List.of("TagA", "TagB")));
        a.setCodeSet(new LinkedHashSet<>(List.of("TagA".hashCode(), "TagB".hashCode())));
        SubscriptionData r = new SubscriptionData("%RETRY%g-one", "*");
        r.setSubVersion(T);
        return new LinkedHashSet<>(List.of(a, sql(), r));
    }

    static HeartbeatData heartbeat() {
        HeartbeatData h = new HeartbeatData();
        h.setClientID("10.1.2.3@7#123456789");
        ProducerData p = new ProducerData();
        p.setGroupName("p-one");
        h.getProducerDataSet().add(p);
        ConsumerData c = new ConsumerData();
        c.setGroupName("g-one");
        c.setConsumeType(ConsumeType.CONSUME_PASSIVELY);
        c.setMessageModel(MessageModel.CLUSTERING);
        c.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET);
        c.setSubscriptionDataSet(subscriptions());
        h.getConsumerDataSet().add(c);
        return h;
    }

    static BrokerData broker(String name, int replicas, boolean acting) {
        HashMap<Long, String> addrs = new HashMap<>();
        for (int i = 0; i < replicas; i++) addrs.put((long) i, "10.1." + (name.charAt(7) - 'a') + "." + i + ":10911");
        BrokerData b = new BrokerData("DefaultCluster", name, addrs, acting);
        if (acting) b.setZoneName("zone-1");
        return b;
    }

    static TopicRouteData route(int brokers, boolean mapping) {
        TopicRouteData r = new TopicRouteData();
        r.setQueueDatas(new ArrayList<>());
        r.setBrokerDatas(new ArrayList<>());
        r.setFilterServerTable(new HashMap<>());
        for (int i = 0; i < brokers; i++) {
            String name = "broker-" + (char) ('a' + i);
            QueueData q = new QueueData();
            q.setBrokerName(name);
            q.setReadQueueNums(8 + i);
            q.setWriteQueueNums(4 + i);
            q.setPerm(6);
            q.setTopicSysFlag(i);
            r.getQueueDatas().add(q);
            r.getBrokerDatas().add(broker(name, i + 1, i == 1));
        }
        if (brokers > 1) {
            r.setOrderTopicConf("broker-a:4;broker-b:4");
            r.getFilterServerTable().put("10.1.0.0:10911", new ArrayList<>(List.of("10.9.9.9:11000")));
        }
        if (mapping) r.setTopicQueueMappingByBroker(new HashMap<>(Map.of("broker-a", mappingInfo())));
        return r;
    }

    static TopicQueueMappingInfo mappingInfo() {
        TopicQueueMappingInfo t = new TopicQueueMappingInfo("TopicA", 8, "broker-a", T);
        t.getCurrIdMap().put(0, 0);
        t.getCurrIdMap().put(1, 5);
        return t;
    }

    static RegisterBrokerBody registerBrokerBody(boolean mapping) {
        TopicConfigAndMappingSerializeWrapper w = new TopicConfigAndMappingSerializeWrapper();
        for (TopicConfig t : topicConfigs()) w.getTopicConfigTable().put(t.getTopicName(), t);
        w.setDataVersion(dataVersion());
        w.setMappingDataVersion(dataVersion());
        if (mapping) w.getTopicQueueMappingInfoMap().put("TopicA", mappingInfo());
        RegisterBrokerBody b = new RegisterBrokerBody();
        b.setTopicConfigSerializeWrapper(w);
        b.setFilterServerList(new ArrayList<>(List.of("10.9.9.9:11000")));
        return b;
    }
}
