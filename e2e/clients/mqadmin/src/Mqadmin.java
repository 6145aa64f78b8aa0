import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.Predicate;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.tools.command.MQAdminStartup;

/**
 * Runs Apache's mqadmin commands in one JVM and looks at what they print.
 *
 * Arguments: name server, prefix of topic and group names, features separated by commas. Prints
 * one line a feature: `RESULT name ok seconds` or `RESULT name fail reason`.
 */
public final class Mqadmin {
    private static final int BOUND_SECONDS = 20;
    private static final PrintStream OUT = System.out;
    private static String[] broker;

    private final String namesrv;
    private final String topic;
    private final String group;

    interface Feature {
        void run(Mqadmin admin) throws Exception;
    }

    private Mqadmin(String namesrv, String prefix, String feature) {
        this.namesrv = namesrv;
        this.topic = prefix + "-" + feature;
        this.group = "g-" + prefix + "-" + feature;
    }

    public static void main(String[] args) {
        Map<String, Feature> features = new LinkedHashMap<>();
        features.put("cluster", Mqadmin::cluster);
        features.put("topic", Mqadmin::topic);
        features.put("group", Mqadmin::group);
        features.put("message", Mqadmin::message);
        features.put("connection", Mqadmin::connection);
        features.put("kv", Mqadmin::kv);
        features.put("replicas", Mqadmin::replicas);
        features.put("config", Mqadmin::config);
        features.put("write-perm", Mqadmin::writePerm);
        features.keySet().retainAll(Arrays.asList(args[2].split(",")));
        features.forEach((name, feature) -> {
            long start = System.nanoTime();
            String outcome;
            try {
                feature.run(new Mqadmin(args[0], args[1], name));
                outcome = String.format(Locale.ROOT, "ok %.2f", (System.nanoTime() - start) / 1e9);
            } catch (Throwable e) {
                e.printStackTrace();
                outcome = "fail " + String.valueOf(e).replaceAll("\\s+", " ");
            }
            OUT.println("RESULT " + name + " " + outcome);
        });
        System.exit(0);
    }

    /** Runs one command and answers with all that it printed. */
    private String run(String... command) {
        List<String> words = new ArrayList<>(List.of(command));
        words.addAll(List.of("-n", namesrv));
        ByteArrayOutputStream printed = new ByteArrayOutputStream();
        PrintStream errors = System.err;
        PrintStream capture = new PrintStream(printed, true, StandardCharsets.UTF_8);
        System.setOut(capture);
        System.setErr(capture);
        try {
            MQAdminStartup.main0(words.toArray(String[]::new), null);
        } finally {
            System.setOut(OUT);
            System.setErr(errors);
        }
        return printed.toString(StandardCharsets.UTF_8);
    }

    /** Runs a command again until what it prints is as wanted: registration takes its time. */
    private String runUntil(String what, Predicate<String> wanted, String... command) throws Exception {
        long end = System.nanoTime() + BOUND_SECONDS * 1_000_000_000L;
        while (true) {
            String printed = run(command);
            if (wanted.test(printed)) {
                return printed;
            }
            check(System.nanoTime() < end, command[0] + ": waited " + BOUND_SECONDS + " s for " + what + ", got: "
                + printed);
            Thread.sleep(50);
        }
    }

    private String runExpecting(String text, String... command) {
        String printed = run(command);
        check(printed.contains(text), command[0] + " did not print \"" + text + "\" but: " + printed);
        return printed;
    }

    private static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    private static String find(String pattern, String text) {
        Matcher matcher = Pattern.compile(pattern, Pattern.MULTILINE).matcher(text);
        check(matcher.find(), "nothing like " + pattern + " in: " + text);
        return matcher.group(1);
    }

    /** Columns of the only broker's line: cluster, broker, id, address, version and so on. */
    private String[] broker() {
        if (broker == null) {
            broker = findBroker();
        }
        return broker;
    }

    private String[] findBroker() {
        String printed = run("clusterList");
        for (String line : printed.split("\n")) {
            String[] columns = line.trim().split("\\s+");
            if (!line.startsWith("#") && columns.length > 5 && columns[2].equals("0")) {
                return columns;
            }
        }
        throw new AssertionError("clusterList shows no master: " + printed);
    }

    /** A setting is changed and shown, and what cannot be changed is refused in words. */
    private void config() {
        String address = broker()[3];
        String before = find("^fileReservedTime\\s*=\\s*(\\d+)", run("getBrokerConfig", "-b", address));
        runExpecting("update broker config success", "updateBrokerConfig", "-b", address, "-k", "fileReservedTime", "-v", "7");
        check("7".equals(find("^fileReservedTime\\s*=\\s*(\\d+)", run("getBrokerConfig", "-b", address))), "not 7 hours");
        String[][] refused = {{"flushDiskType", "SYNC_FLUSH", "restart"}, {"fileReservdTime", "7", "no setting is called"},
            {"deleteWhen", "24", "hours go from 0 to 23"}, {"defaultTopicQueueNums", "many", "whole number"}};
        for (String[] one : refused) {
            String printed = runExpecting(one[2], "updateBrokerConfig", "-b", address, "-k", one[0], "-v", one[1]);
            check(printed.contains("CODE: 29"), "no INVALID_PARAMETER: " + printed);
        }
        runExpecting("update broker config success", "updateBrokerConfig", "-b", address, "-k", "fileReservedTime", "-v", before);
    }

    /** Of a broker that is alone: its own in-sync set, without slaves and epochs. */
    private void replicas() {
        String[] broker = broker();
        String status = runExpecting("#SlaveNum\t0", "haStatus", "-b", broker[3]);
        check(status.contains("#MasterAddr\t" + broker[3]), "haStatus: " + status);
        runExpecting("#brokerAddr\t" + broker[3], "getBrokerEpoch", "-b", broker[1]);
        String set = runExpecting("#SyncStateSetNums\t1", "getSyncStateSet", "-a", broker[3], "-b", broker[1]);
        check(set.contains("#MasterAddr\t" + broker[3]), "getSyncStateSet: " + set);
    }

    private void cluster() {
        String[] broker = broker();
        check(broker[3].matches(".+:\\d+"), "address in clusterList: " + broker[3]);
        check(broker[4].startsWith("V"), "version in clusterList: " + broker[4]);
        String status = run("brokerStatus", "-b", broker[3]);
        for (String key : List.of("bootTimestamp", "brokerVersionDesc", "commitLogMaxOffset", "commitLogMinOffset",
            "commitLogDiskRatio", "putTps", "getTotalTps", "msgPutTotalTodayNow", "msgGetTotalTodayNow",
            "putMessageTimesTotal", "earliestMessageTimeStamp", "dispatchBehindBytes", "runtime",
            "sendThreadPoolQueueSize", "pullThreadPoolQueueSize")) {
            find("^(" + key + ")\\s*:", status);
        }
    }

    private void createTopic(int queues) throws Exception {
        runExpecting("create topic to", "updateTopic", "-c", broker()[0], "-t", topic, "-r", "" + queues, "-w",
            "" + queues);
        runUntil("the route", printed -> printed.contains("\"readQueueNums\":" + queues), "topicRoute", "-t", topic);
    }

    private void topic() throws Exception {
        createTopic(3);
        String route = run("topicRoute", "-t", topic);
        check(route.contains("\"writeQueueNums\":3") && route.contains("\"perm\":6"), "topicRoute: " + route);
        check(route.contains(broker()[3]), "topicRoute names no broker address: " + route);
        check(Arrays.asList(run("topicList").split("\\s+")).contains(topic), "topicList lacks " + topic);
        String status = run("topicStatus", "-t", topic);
        long lines = status.lines().filter(line -> line.startsWith(broker()[1])).count();
        check(lines == 3, "topicStatus of three queues: " + status);

        // The same command changes a topic.
        runExpecting("create topic to", "updateTopic", "-c", broker()[0], "-t", topic, "-r", "5", "-w", "5");
        runUntil("five queues", printed -> printed.contains("\"readQueueNums\":5"), "topicRoute", "-t", topic);

        runExpecting("delete topic", "deleteTopic", "-c", broker()[0], "-t", topic);
        runUntil("the topic to go", printed -> !Arrays.asList(printed.split("\\s+")).contains(topic), "topicList");
        runExpecting("CODE: 17", "topicRoute", "-t", topic);
    }

    private void group() {
        runExpecting("success", "updateSubGroup", "-c", broker()[0], "-g", group, "-r", "7");
        String config = run("getConsumerConfig", "-g", group);
        find("^(retryMaxTimes\\s*= *7)\\s*$", config);
        runExpecting("success", "deleteSubGroup", "-c", broker()[0], "-g", group);
    }

    private void message() throws Exception {
        createTopic(1);
        String sent = runExpecting("SEND_OK", "sendMessage", "-t", topic, "-p", "body of mqadmin", "-k", "key-1", "-c",
            "TagA");
        String uniqueId = find("\\s([0-9A-F]{32,56})\\s*$", sent);

        String byUniqueKey = runUntil("the message in the index", printed -> printed.contains("Message Body Path"),
            "queryMsgByUniqueKey", "-i", uniqueId, "-t", topic);
        checkMessage(byUniqueKey, uniqueId);
        String byKey = runExpecting(uniqueId, "queryMsgByKey", "-t", topic, "-k", "key-1");
        check(byKey.lines().filter(line -> line.contains(uniqueId)).count() == 1, "queryMsgByKey: " + byKey);
        checkMessage(run("queryMsgByOffset", "-t", topic, "-b", broker()[1], "-i", "0", "-o", "0"), uniqueId);

        // The broker's id is shown nowhere above; the producer that got it asks with it.
        DefaultMQProducer producer = producer();
        var result = producer.send(new Message(topic, "TagA", "key-1", "body of mqadmin".getBytes()));
        producer.shutdown();
        checkMessage(run("queryMsgById", "-t", topic, "-i", result.getOffsetMsgId()), result.getMsgId());
    }

    private void checkMessage(String printed, String uniqueId) throws Exception {
        check(printed.contains(uniqueId) && find("^Topic:\\s+(\\S+)", printed).equals(topic), "message: " + printed);
        check(find("^Tags:\\s+(\\S+)", printed).contains("TagA"), "tags: " + printed);
        check(find("^Keys:\\s+(\\S+)", printed).contains("key-1"), "keys: " + printed);
        // mqadmin leaves the body in a file, always below the same folder.
        Path body = Path.of(find("^Message Body Path:\\s+(\\S+)", printed));
        check(Files.readString(body).equals("body of mqadmin"), "body: " + Files.readString(body));
        Files.deleteIfExists(body);
    }

    private DefaultMQProducer producer() throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer("p-" + topic);
        producer.setNamesrvAddr(namesrv);
        producer.setInstanceName("p-" + topic);
        producer.setHeartbeatBrokerInterval(500);
        producer.setPollNameServerInterval(500);
        producer.start();
        return producer;
    }

    private void connection() throws Exception {
        createTopic(2);
        DefaultMQProducer producer = producer();
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(namesrv);
        consumer.setInstanceName("c-" + topic);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe(topic, "TagA || TagB");
        consumer.registerMessageListener(
            (MessageListenerConcurrently) (messages, context) -> ConsumeConcurrentlyStatus.CONSUME_SUCCESS);
        consumer.start();
        try {
            for (int i = 0; i < 10; i++) {
                producer.send(new Message(topic, "TagA", "key-" + i, ("body " + i).getBytes()));
            }
            String producers = runUntil("the producer", printed -> printed.contains("p-" + topic),
                "producerConnection", "-g", "p-" + topic, "-t", topic);
            check(producers.contains("JAVA") && producers.contains("V5_5_0"), "producerConnection: " + producers);
            String consumers = runUntil("the consumer", printed -> printed.contains("c-" + topic),
                "consumerConnection", "-g", group);
            check(consumers.contains("CONSUME_PASSIVELY") && consumers.contains("CLUSTERING")
                && consumers.contains("TagA || TagB"), "consumerConnection: " + consumers);
            runUntil("nothing left to consume", printed -> {
                consumer.getDefaultMQPushConsumerImpl().persistConsumerOffset();
                return printed.contains("Consume Diff Total: 0") && consumed(printed) == 10;
            }, "consumerProgress", "-g", group);
            runUntil("the running consumer", printed -> printed.contains("c-" + topic), "consumerStatus", "-g", group);
        } finally {
            consumer.shutdown();
            producer.shutdown();
        }
    }

    /** The sum of the consumer's offsets that consumerProgress shows for the topic. */
    private long consumed(String progress) {
        return progress.lines().map(line -> line.trim().split("\\s+"))
            .filter(columns -> columns.length > 4 && columns[0].equals(topic))
            .mapToLong(columns -> Long.parseLong(columns[4])).sum();
    }

    private void kv() {
        runExpecting("success", "updateKvConfig", "-s", "E2E", "-k", topic, "-v", "some value");
        runExpecting("success", "deleteKvConfig", "-s", "E2E", "-k", topic);
        // Ordered topics are the one use of key-value configuration that mqadmin can also read.
        String value = broker()[1] + ":4";
        runExpecting("success", "updateOrderConf", "-t", topic, "-m", "put", "-v", value);
        runExpecting(value, "updateOrderConf", "-t", topic, "-m", "get");
        runExpecting("success", "updateOrderConf", "-t", topic, "-m", "delete");
    }

    private void writePerm() throws Exception {
        createTopic(1);
        String broker = broker()[1];
        try {
            runExpecting("OK", "wipeWritePerm", "-b", broker);
            runUntil("a route without write", printed -> printed.contains("\"perm\":4"), "topicRoute", "-t", topic);
        } finally {
            runExpecting("OK", "addWritePerm", "-b", broker);
        }
        runUntil("a route with write", printed -> printed.contains("\"perm\":6"), "topicRoute", "-t", topic);
    }
}
