import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** The two pull consumers. */
final class Pulling {
    private Pulling() {
    }

    /** Subscribe, poll and commit; then assign one queue, seek to its beginning and read it again. */
    static void lite(Scope scope) throws Exception {
        scope.send(0, 20, "TagA");
        List<MessageQueue> queues = scope.queues(scope.topic);

        DefaultLitePullConsumer consumer = scope.configure(new DefaultLitePullConsumer(scope.group));
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setAutoCommit(false);
        consumer.subscribe(scope.topic, "*");
        consumer.start();
        scope.onClose(consumer::shutdown);
        scope.checkMessages(poll(consumer, 20), 0, 20, "TagA");
        consumer.commitSync();
        Check.await("20 messages committed", 20, () -> {
            long sum = 0;
            for (MessageQueue queue : queues) {
                sum += Math.max(0, consumer.committed(queue));
            }
            return sum == 20 ? true : null;
        });

        MessageQueue queue = queues.get(0);
        long max = scope.producer.maxOffset(queue);
        DefaultLitePullConsumer assigned = scope.configure(new DefaultLitePullConsumer(scope.group + "-assigned"));
        assigned.start();
        scope.onClose(assigned::shutdown);
        assigned.assign(Collections.singletonList(queue));
        // A seek while the client's first pull is under way races with it inside the client: what
        // that pull brings may be kept, or the new pull may wait behind it. So wait for it first.
        poll(assigned, (int) max);
        assigned.seek(queue, 1);
        List<MessageExt> again = poll(assigned, (int) max - 1);
        Check.equal("first offset after the seek", 1L, again.get(0).getQueueOffset());
        Check.equal("last offset after the seek", max - 1, again.get(again.size() - 1).getQueueOffset());
    }

    private static List<MessageExt> poll(DefaultLitePullConsumer consumer, int count) throws Exception {
        List<MessageExt> received = new ArrayList<>();
        Check.await(() -> count + " polled messages, have " + received.size(), 30, () -> {
            received.addAll(consumer.poll(200));
            return received.size() >= count ? true : null;
        });
        Check.equal("messages polled", count, received.size());
        return received;
    }

    /** Queue by queue from offset 0, with every status a pull can have, and offsets kept on the broker. */
    static void classic(Scope scope) throws Exception {
        scope.send(0, 20, "TagA");
        scope.queues(scope.topic);
        @SuppressWarnings("deprecation")
        DefaultMQPullConsumer consumer = scope.configure(new DefaultMQPullConsumer(scope.group));
        consumer.setConsumerPullTimeoutMillis(5000);
        consumer.start();
        scope.onClose(consumer::shutdown);

        List<MessageExt> received = new ArrayList<>();
        for (MessageQueue queue : consumer.fetchSubscribeMessageQueues(scope.topic)) {
            long offset = consumer.minOffset(queue);
            long max = consumer.maxOffset(queue);
            Check.equal("first offset", 0L, offset);
            Check.that(consumer.fetchConsumeOffset(queue, true) <= 0, "a new group already has an offset");
            while (offset < max) {
                PullResult result = consumer.pull(queue, "*", offset, 2);
                Check.equal("pull at " + offset + " of " + max, PullStatus.FOUND, result.getPullStatus());
                Check.that(result.getMsgFoundList().size() <= 2, "more messages than were asked for");
                Check.equal("max offset in the reply", max, result.getMaxOffset());
                received.addAll(result.getMsgFoundList());
                offset = result.getNextBeginOffset();
            }
            Check.equal("pull at the end", PullStatus.NO_NEW_MSG,
                consumer.pull(queue, "*", max, 32).getPullStatus());
            Check.equal("pull of another tag", PullStatus.NO_MATCHED_MSG,
                consumer.pull(queue, "Other", 0, 32).getPullStatus());
            PullResult past = consumer.pull(queue, "*", max + 100, 32);
            Check.equal("pull past the end", PullStatus.OFFSET_ILLEGAL, past.getPullStatus());
            Check.equal("where to go on from past the end", max, past.getNextBeginOffset());

            consumer.updateConsumeOffset(queue, offset);
            consumer.getDefaultMQPullConsumerImpl().getOffsetStore().persist(queue);
            Check.await("offset " + offset + " of " + queue, 10,
                () -> consumer.fetchConsumeOffset(queue, true) == max ? true : null);
        }
        scope.checkMessages(received, 0, 20, "TagA");
    }
}
