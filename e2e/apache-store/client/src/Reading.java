import java.util.ArrayList;
import java.util.Base64;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import org.apache.rocketmq.client.QueryResult;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.common.message.MessageClientExt;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Reads everything that a broker serves, as values that can be compared. */
final class Reading {
    private static final AtomicInteger INSTANCES = new AtomicInteger();

    /** topic/queue → {min, max, messages}, from the first message to the last. */
    static Map<String, Object> dump(String namesrv, List<String> topics) throws Exception {
        DefaultMQPullConsumer consumer = consumer(namesrv, "store-test-readers");
        try {
            Map<String, Object> dump = new TreeMap<>();
            for (String topic : topics) {
                for (MessageQueue queue : queues(consumer, topic)) {
                    Map<String, Object> found = new TreeMap<>();
                    long min = consumer.minOffset(queue);
                    long max = consumer.maxOffset(queue);
                    found.put("min", min);
                    found.put("max", max);
                    found.put("messages", max > min ? messages(consumer, queue, min, max) : List.of());
                    dump.put(topic + "/" + queue.getQueueId(), found);
                }
            }
            return dump;
        } finally {
            consumer.shutdown();
        }
    }

    private static List<MessageQueue> queues(DefaultMQPullConsumer consumer, String topic) throws Exception {
        // A broker that has just started is known to the name server a moment later.
        long deadline = System.nanoTime() + 20_000_000_000L;
        while (true) {
            try {
                List<MessageQueue> queues = new ArrayList<>(consumer.fetchSubscribeMessageQueues(topic));
                queues.sort(Comparator.comparingInt(MessageQueue::getQueueId));
                return queues;
            } catch (MQClientException unknown) {
                if (System.nanoTime() > deadline) {
                    throw unknown;
                }
                Thread.sleep(200);
            }
        }
    }

    private static List<Map<String, Object>> messages(DefaultMQPullConsumer consumer, MessageQueue queue, long min, long max)
        throws Exception {
        List<Map<String, Object>> messages = new ArrayList<>();
        long next = min;
        while (next < max) {
            PullResult pulled = consumer.pull(queue, "*", next, 32);
            if (pulled.getPullStatus() == PullStatus.NO_MATCHED_MSG && pulled.getNextBeginOffset() > next) {
                // Apache passes over entries whose messages have expired. What is missing shows when dumps are compared.
                next = pulled.getNextBeginOffset();
                continue;
            }
            if (pulled.getPullStatus() != PullStatus.FOUND) {
                throw new IllegalStateException(queue + " at " + next + " of " + max + ": " + pulled);
            }
            for (MessageExt message : pulled.getMsgFoundList()) {
                messages.add(describe(message));
            }
            next = pulled.getNextBeginOffset();
        }
        return messages;
    }

    static Map<String, Object> describe(MessageExt message) {
        Map<String, Object> described = new TreeMap<>();
        described.put("topic", message.getTopic());
        described.put("queue", message.getQueueId());
        described.put("offset", message.getQueueOffset());
        described.put("position", message.getCommitLogOffset());
        described.put("id", ((MessageClientExt) message).getOffsetMsgId());
        described.put("unique", message.getMsgId());
        described.put("body", Base64.getEncoder().encodeToString(message.getBody()));
        described.put("bodyCrc", message.getBodyCRC());
        described.put("flag", message.getFlag());
        described.put("sysFlag", message.getSysFlag());
        described.put("born", message.getBornTimestamp() + " " + message.getBornHost());
        described.put("stored", message.getStoreTimestamp() + " " + message.getStoreHost());
        described.put("reconsumeTimes", message.getReconsumeTimes());
        Map<String, String> properties = new TreeMap<>(message.getProperties());
        // Added to what was pulled: what the queue was like at that moment.
        properties.keySet().removeAll(List.of("MIN_OFFSET", "MAX_OFFSET"));
        described.put("properties", properties);
        return described;
    }

    /** Looks each message up by key, unique key and id; the answer has what could not be found. */
    static List<String> find(String namesrv, List<Map> wanted) throws Exception {
        DefaultMQPullConsumer consumer = consumer(namesrv, "store-test-readers");
        try {
            List<String> missing = new ArrayList<>();
            for (Map message : wanted) {
                String topic = (String) message.get("topic");
                String id = (String) message.get("id");
                String unique = (String) message.get("unique");
                Map properties = (Map) message.get("properties");
                String keys = (String) properties.get("KEYS");
                if (keys != null) {
                    expect(missing, "key " + keys.split(" ")[0], id, () -> byKey(consumer, topic, keys.split(" ")[0]));
                }
                expect(missing, "unique key " + unique, id, () -> List.of(id(consumer.viewMessage(topic, unique))));
                expect(missing, "id " + id, id, () -> List.of(id(consumer.viewMessage(id))));
            }
            return missing;
        } finally {
            consumer.shutdown();
        }
    }

    private interface LookUp {
        List<String> ids() throws Exception;
    }

    private static void expect(List<String> missing, String how, String id, LookUp lookUp) {
        try {
            List<String> found = lookUp.ids();
            if (!found.contains(id)) {
                missing.add(how + " finds " + found + ", not " + id);
            }
        } catch (Exception failure) {
            missing.add(how + ": " + failure.getMessage());
        }
    }

    private static List<String> byKey(DefaultMQPullConsumer consumer, String topic, String key) throws Exception {
        QueryResult result = consumer.queryMessage(topic, key, 32, 0, System.currentTimeMillis() + 3_600_000);
        return result.getMessageList().stream().map(Reading::id).collect(Collectors.toList());
    }

    private static String id(MessageExt message) {
        return message instanceof MessageClientExt ? ((MessageClientExt) message).getOffsetMsgId() : message.getMsgId();
    }

    /** queue → the offset that the broker has of a group; -1 for none. */
    static Map<String, Long> committed(String namesrv, String group, String topic) throws Exception {
        DefaultMQPullConsumer consumer = consumer(namesrv, group);
        try {
            Map<String, Long> offsets = new TreeMap<>();
            for (MessageQueue queue : queues(consumer, topic)) {
                offsets.put(String.valueOf(queue.getQueueId()), consumer.fetchConsumeOffset(queue, true));
            }
            return offsets;
        } finally {
            consumer.shutdown();
        }
    }

    private static DefaultMQPullConsumer consumer(String namesrv, String group) throws Exception {
        DefaultMQPullConsumer consumer = new DefaultMQPullConsumer(group);
        consumer.setNamesrvAddr(namesrv);
        consumer.setInstanceName("reader-" + INSTANCES.incrementAndGet());
        // Closing it must not commit what it never consumed.
        consumer.setPersistConsumerOffsetInterval(3_600_000);
        consumer.start();
        return consumer;
    }
}
