import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.function.ToLongFunction;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.store.OffsetStore;
import org.apache.rocketmq.client.consumer.store.ReadOffsetType;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.MessageConst;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** What happens to messages that were not consumed, and to consumers that come back. */
final class Recovery {
    private Recovery() {
    }

    /** A message sent back once comes again, from the retry topic and after the delay asked for. */
    static void retry(Scope scope) throws Exception {
        SendResult sent = scope.send(0, 1, "TagA").get(0);
        scope.queues(scope.topic);
        DefaultMQPushConsumer consumer = scope.consumer("*");
        List<MessageExt> received = Collections.synchronizedList(new ArrayList<>());
        List<String> origins = Collections.synchronizedList(new ArrayList<>());
        List<Long> times = Collections.synchronizedList(new ArrayList<>());
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            origins.add(context.getMessageQueue().getTopic());
            times.add(System.nanoTime());
            received.addAll(messages);
            if (messages.get(0).getReconsumeTimes() == 0) {
                context.setDelayLevelWhenNextConsume(1);
                return ConsumeConcurrentlyStatus.RECONSUME_LATER;
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        Scope.awaitCount(received, 2);
        MessageExt again = received.get(1);
        Check.equal("topics it came from", List.of(scope.topic, "%RETRY%" + scope.group), origins);
        Check.equal("times consumed before", 1, again.getReconsumeTimes());
        Check.equal("topic", scope.topic, again.getTopic());
        Check.equal("unique id", sent.getMsgId(), again.getMsgId());
        Check.equal("body", new String(scope.body(0)), new String(again.getBody()));
        Check.equal("key", "key-0", again.getKeys());
        Check.equal("tag", "TagA", again.getTags());
        Check.equal("id of the origin", sent.getOffsetMsgId(),
            String.valueOf(again.getProperty(MessageConst.PROPERTY_ORIGIN_MESSAGE_ID)));
        long delay = (times.get(1) - times.get(0)) / 1_000_000;
        Check.that(delay >= 800, "it came after " + delay + " ms, level 1 is 1 s");
    }

    /** With no retries allowed a failed message goes to the dead letter topic at once. */
    static void deadLetter(Scope scope) throws Exception {
        SendResult sent = scope.send(0, 1, "TagA").get(0);
        scope.queues(scope.topic);
        DefaultMQPushConsumer consumer = scope.consumer("*");
        consumer.setMaxReconsumeTimes(0);
        List<MessageExt> received = Collections.synchronizedList(new ArrayList<>());
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            received.addAll(messages);
            return ConsumeConcurrentlyStatus.RECONSUME_LATER;
        });
        consumer.start();

        String topic = "%DLQ%" + scope.group;
        @SuppressWarnings("deprecation")
        DefaultMQPullConsumer reader = scope.configure(new DefaultMQPullConsumer(scope.group + "-reader"));
        reader.start();
        scope.onClose(reader::shutdown);
        List<MessageQueue> queues = scope.queues(topic);
        Check.equal("queues of the dead letter topic", 1, queues.size());
        MessageExt dead = Check.await("the dead letter", 20, () -> {
            var result = reader.pull(queues.get(0), "*", 0, 1);
            return result.getPullStatus() == PullStatus.FOUND ? result.getMsgFoundList().get(0) : null;
        });
        Check.equal("body", new String(scope.body(0)), new String(dead.getBody()));
        Check.equal("unique id", sent.getMsgId(), dead.getMsgId());
        Check.equal("key", "key-0", dead.getKeys());
        Check.equal("tag", "TagA", dead.getTags());
        Check.equal("origin topic", scope.topic,
            String.valueOf(dead.getProperty(MessageConst.PROPERTY_RETRY_TOPIC)));
        Check.equal("times received", 1, received.size());
    }

    /** A group goes on where it stopped, also with another client. */
    static void offsets(Scope scope) throws Exception {
        scope.send(0, 12, "TagA");
        List<MessageQueue> queues = scope.queues(scope.topic);
        DefaultMQPushConsumer before = scope.consumer("*");
        List<MessageExt> first = scope.collect(before);
        Scope.awaitCount(first, 12);
        scope.checkMessages(first, 0, 12, "TagA");
        OffsetStore store = before.getDefaultMQPushConsumerImpl().getOffsetStore();
        awaitOffsets("12 messages done", 12, queues, queue -> store.readOffset(queue, ReadOffsetType.READ_FROM_MEMORY));
        before.getDefaultMQPushConsumerImpl().persistConsumerOffset();
        // Reading from the broker overwrites what the client remembers, hence only after the commit.
        awaitOffsets("12 messages committed", 12, queues,
            queue -> store.readOffset(queue, ReadOffsetType.READ_FROM_STORE));
        before.shutdown();
        scope.send(12, 24, "TagB");
        List<MessageExt> second = scope.collect(scope.consumer("*"));
        Scope.awaitCount(second, 12);
        scope.checkMessages(second, 12, 24, "TagB");
    }

    private static void awaitOffsets(String what, long expected, List<MessageQueue> queues,
        ToLongFunction<MessageQueue> offset) throws Exception {
        Check.await(what, 20, () -> {
            long sum = 0;
            for (MessageQueue queue : queues) {
                sum += Math.max(0, offset.applyAsLong(queue));
            }
            return sum == expected ? true : null;
        });
    }
}
