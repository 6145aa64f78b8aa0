import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import org.apache.rocketmq.client.ClientConfig;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** What one feature works with: its own topic and group, and clients that end with it. */
final class Scope implements AutoCloseable {
    private static final AtomicInteger INSTANCES = new AtomicInteger();

    final String topic;
    final String group;
    final DefaultMQProducer producer;
    private final String namesrv;
    private final List<Runnable> closers = Collections.synchronizedList(new ArrayList<>());

    Scope(String namesrv, String prefix, String feature, DefaultMQProducer producer) {
        this.namesrv = namesrv;
        this.topic = prefix + "-" + feature;
        this.group = "g-" + prefix + "-" + feature;
        this.producer = producer;
    }

    /** The settings every client here shares: quick route polls and quick offset commits. */
    static <C extends ClientConfig> C configure(C client, String namesrv) {
        client.setNamesrvAddr(namesrv);
        client.setInstanceName("e2e-" + INSTANCES.incrementAndGet());
        client.setPollNameServerInterval(1000);
        client.setHeartbeatBrokerInterval(2000);
        client.setPersistConsumerOffsetInterval(500);
        return client;
    }

    <C extends ClientConfig> C configure(C client) {
        return configure(client, namesrv);
    }

    void onClose(Runnable closer) {
        closers.add(closer);
    }

    /** The i-th message of a feature; everything about it follows from `i` and the tag. */
    Message message(int i, String tag) {
        Message message = new Message(topic, tag, "key-" + i, body(i));
        message.putUserProperty("number", Integer.toString(i));
        message.putUserProperty("text", "wärme " + i);
        return message;
    }

    byte[] body(int i) {
        return (topic + " body " + i).getBytes(StandardCharsets.UTF_8);
    }

    List<SendResult> send(int from, int to, String tag) throws Exception {
        List<SendResult> results = new ArrayList<>();
        for (int i = from; i < to; i++) {
            results.add(checked(producer.send(message(i, tag))));
        }
        return results;
    }

    static SendResult checked(SendResult result) {
        Check.equal("send status", SendStatus.SEND_OK, result.getSendStatus());
        // Both hold an address: 24 hex digits more where the host has an IPv6 address only.
        Check.that(String.valueOf(result.getMsgId()).matches("[0-9A-F]{32}([0-9A-F]{24})?"),
            "unique id " + result.getMsgId());
        Check.that(String.valueOf(result.getOffsetMsgId()).matches("[0-9A-F]{32}([0-9A-F]{24})?"),
            "broker's message id " + result.getOffsetMsgId());
        return result;
    }

    /** Checks that `received` holds the messages `from..to` once each, with everything that was sent. */
    void checkMessages(Collection<MessageExt> received, int from, int to, String tag) {
        Set<String> expected = new TreeSet<>();
        for (int i = from; i < to; i++) {
            expected.add("key-" + i);
        }
        Check.equal("keys received", expected,
            received.stream().map(MessageExt::getKeys).collect(Collectors.toCollection(TreeSet::new)));
        Check.equal("messages received", to - from, received.size());
        for (MessageExt message : received) {
            int i = Integer.parseInt(message.getUserProperty("number"));
            Check.equal("topic", topic, message.getTopic());
            Check.equal("key", "key-" + i, message.getKeys());
            Check.equal("tag", tag, message.getTags());
            Check.equal("text property", "wärme " + i, message.getUserProperty("text"));
            Check.equal("body", new String(body(i)), new String(message.getBody()));
            Check.equal("times consumed before", 0, message.getReconsumeTimes());
            Check.that(message.getStoreTimestamp() >= message.getBornTimestamp() - 5000,
                "store time " + message.getStoreTimestamp() + " before born time " + message.getBornTimestamp());
        }
    }

    /** Checks that every message came from where its send result said it was stored. */
    static void checkPlaces(Collection<MessageExt> received, Collection<SendResult> results) {
        Map<String, MessageExt> byId = new HashMap<>();
        received.forEach(message -> byId.put(message.getMsgId(), message));
        for (SendResult result : results) {
            MessageExt message = byId.get(result.getMsgId());
            Check.that(message != null, "no message with unique id " + result.getMsgId());
            Check.equal("queue", result.getMessageQueue().getQueueId(), message.getQueueId());
            Check.equal("queue offset", result.getQueueOffset(), message.getQueueOffset());
        }
    }

    /** Checks that the topic's queues together hold `count` messages: nothing was lost or stored twice. */
    void checkStored(int count) throws Exception {
        long sum = 0;
        for (MessageQueue queue : queues(topic)) {
            sum += producer.maxOffset(queue) - producer.minOffset(queue);
        }
        Check.equal("messages stored", (long) count, sum);
    }

    /** The topic's queues, once the name server knows it. */
    List<MessageQueue> queues(String name) throws Exception {
        return Check.await("route of " + name, 20, () -> {
            List<MessageQueue> queues = producer.fetchPublishMessageQueues(name);
            return queues.isEmpty() ? null : queues;
        });
    }

    /** A consumer of the whole topic that starts at its beginning; the caller registers a listener and starts it. */
    DefaultMQPushConsumer consumer(String expression) throws Exception {
        DefaultMQPushConsumer consumer = configure(new DefaultMQPushConsumer(group));
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setConsumeThreadMin(2);
        consumer.setConsumeThreadMax(2);
        consumer.subscribe(topic, expression);
        onClose(consumer::shutdown);
        return consumer;
    }

    /** Starts a consumer that puts what it gets into the list it returns. */
    List<MessageExt> collect(DefaultMQPushConsumer consumer) throws Exception {
        List<MessageExt> received = Collections.synchronizedList(new ArrayList<>());
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            received.addAll(messages);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        return received;
    }

    /** Receives `count` messages of the topic with a fresh consumer. */
    List<MessageExt> receive(int count) throws Exception {
        queues(topic);
        List<MessageExt> received = collect(consumer("*"));
        awaitCount(received, count);
        return received;
    }

    static void awaitCount(Collection<MessageExt> received, int count) throws Exception {
        Check.await(() -> count + " messages, have " + received.size(), 30, () -> received.size() >= count ? true : null);
    }

    @Override
    public void close() {
        Collections.reverse(closers);
        closers.forEach(Runnable::run);
    }
}
