import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Comparator;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** The ways to send; each message is received again with a push consumer. */
final class Sending {
    private Sending() {
    }

    static void sync(Scope scope) throws Exception {
        List<SendResult> results = scope.send(0, 12, "TagA");
        long queues = results.stream().map(result -> result.getMessageQueue().getQueueId()).distinct().count();
        Check.that(queues > 1, "12 messages went to " + queues + " queue");

        // Past 4 KiB the client compresses; it must get back what the application gave it.
        byte[] big = new byte[100_000];
        Arrays.fill(big, (byte) 'x');
        big[77] = 0;
        results.add(Scope.checked(scope.producer.send(new Message(scope.topic, "Big", "big", big))));

        List<MessageExt> received = scope.receive(13);
        Scope.checkPlaces(received, results);
        MessageExt bigOne = received.stream().filter(message -> "big".equals(message.getKeys())).findFirst().get();
        Check.that(Arrays.equals(big, bigOne.getBody()), "the compressed body came back different");
        scope.checkMessages(
            received.stream().filter(message -> message != bigOne).collect(Collectors.toList()), 0, 12, "TagA");
        scope.checkStored(13);
    }

    static void async(Scope scope) throws Exception {
        List<SendResult> results = Collections.synchronizedList(new ArrayList<>());
        List<Throwable> failures = Collections.synchronizedList(new ArrayList<>());
        CountDownLatch answered = new CountDownLatch(40);
        for (int i = 0; i < 40; i++) {
            scope.producer.send(scope.message(i, "TagA"), new SendCallback() {
                @Override
                public void onSuccess(SendResult result) {
                    results.add(result);
                    answered.countDown();
                }

                @Override
                public void onException(Throwable e) {
                    failures.add(e);
                    answered.countDown();
                }
            });
        }
        Check.that(answered.await(20, TimeUnit.SECONDS), answered.getCount() + " of 40 sends never answered");
        Check.that(failures.isEmpty(), "async send failed: " + failures);
        results.forEach(Scope::checked);
        List<MessageExt> received = scope.receive(40);
        scope.checkMessages(received, 0, 40, "TagA");
        Scope.checkPlaces(received, results);
        scope.checkStored(40);
    }

    static void oneWay(Scope scope) throws Exception {
        for (int i = 0; i < 20; i++) {
            scope.producer.sendOneway(scope.message(i, "TagA"));
        }
        scope.checkMessages(scope.receive(20), 0, 20, "TagA");
        scope.checkStored(20);
    }

    static void batch(Scope scope) throws Exception {
        List<Message> messages = new ArrayList<>();
        for (int i = 0; i < 16; i++) {
            messages.add(scope.message(i, "TagA"));
        }
        SendResult result = scope.producer.send(messages);
        Check.equal("send status", SendStatus.SEND_OK, result.getSendStatus());
        Check.equal("unique ids", 16, result.getMsgId().split(",").length);
        Check.equal("broker's message ids", 16, result.getOffsetMsgId().split(",").length);

        List<MessageExt> received = scope.receive(16);
        scope.checkMessages(received, 0, 16, "TagA");
        List<MessageExt> byOffset = new ArrayList<>(received);
        byOffset.sort(Comparator.comparingLong(MessageExt::getQueueOffset));
        for (int i = 0; i < 16; i++) {
            MessageExt message = byOffset.get(i);
            Check.equal("queue of message " + i, result.getMessageQueue().getQueueId(), message.getQueueId());
            Check.equal("offset of message " + i, result.getQueueOffset() + i, message.getQueueOffset());
            Check.equal("key at place " + i, "key-" + i, message.getKeys());
        }
        scope.checkStored(16);
    }
}
