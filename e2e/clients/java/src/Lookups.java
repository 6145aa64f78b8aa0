import java.util.List;
import org.apache.rocketmq.client.QueryResult;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Finding stored messages again: by the broker's id, the unique id, a key, a time. */
final class Lookups {
    private Lookups() {
    }

    static void query(Scope scope) throws Exception {
        long begin = System.currentTimeMillis();
        List<SendResult> results = scope.send(0, 6, "TagA");
        scope.queues(scope.topic);
        SendResult sent = results.get(3);

        check(scope, "by broker's id", scope.producer.viewMessage(scope.topic, sent.getOffsetMsgId()), sent);
        // The index is written behind the log.
        check(scope, "by unique id", Check.await("message by unique id", 20,
            () -> scope.producer.viewMessage(scope.topic, sent.getMsgId())), sent);
        MessageExt byKey = Check.await("message by key", 20, () -> {
            QueryResult found = scope.producer.queryMessage(scope.topic, "key-3", 32, begin - 60_000,
                System.currentTimeMillis() + 60_000);
            Check.equal("messages with key-3", 1, found.getMessageList().size());
            return found.getMessageList().get(0);
        });
        check(scope, "by key", byKey, sent);
        try {
            QueryResult none = scope.producer.queryMessage(scope.topic, "no-such-key", 32, begin - 60_000,
                System.currentTimeMillis() + 60_000);
            throw new AssertionError("a key that nobody sent found " + none.getMessageList());
        } catch (MQClientException e) {
            Check.equal("code of the exception", 208, e.getResponseCode());
        }

        MessageQueue queue = sent.getMessageQueue();
        Check.equal("offset at the store time", sent.getQueueOffset(),
            scope.producer.searchOffset(queue, byKey.getStoreTimestamp()));
        Check.equal("offset of an hour ago", 0L, scope.producer.searchOffset(queue, begin - 3_600_000));
        long earliest = scope.producer.earliestMsgStoreTime(queue);
        Check.that(earliest >= begin - 60_000 && earliest <= byKey.getStoreTimestamp(),
            "earliest store time " + earliest + ", began at " + begin);
    }

    private static void check(Scope scope, String how, MessageExt message, SendResult sent) {
        Check.equal("body " + how, new String(scope.body(3)), new String(message.getBody()));
        Check.equal("key " + how, "key-3", message.getKeys());
        Check.equal("tag " + how, "TagA", message.getTags());
        Check.equal("topic " + how, scope.topic, message.getTopic());
        Check.equal("queue " + how, sent.getMessageQueue().getQueueId(), message.getQueueId());
        Check.equal("queue offset " + how, sent.getQueueOffset(), message.getQueueOffset());
    }
}
