import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** What push consumers do with a topic. */
final class Consuming {
    private Consuming() {
    }

    /** Messages of one order keep their order, also when the listener puts a queue off for a moment. */
    static void ordered(Scope scope) throws Exception {
        int orders = 3;
        int steps = 8;
        for (int step = 0; step < steps; step++) {
            for (int order = 0; order < orders; order++) {
                Scope.checked(scope.producer.send(scope.message(step * orders + order, "order-" + order),
                    (queues, message, id) -> queues.get((Integer) id % queues.size()), order));
            }
        }
        scope.queues(scope.topic);
        DefaultMQPushConsumer consumer = scope.consumer("*");
        consumer.setConsumeMessageBatchMaxSize(1);
        Map<String, List<Integer>> seen = new ConcurrentHashMap<>();
        AtomicInteger count = new AtomicInteger();
        AtomicBoolean putOff = new AtomicBoolean();
        consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
            MessageExt message = messages.get(0);
            int number = Integer.parseInt(message.getUserProperty("number"));
            if (number == 4 && putOff.compareAndSet(false, true)) {
                context.setSuspendCurrentQueueTimeMillis(100);
                return ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT;
            }
            seen.computeIfAbsent(message.getTags(), tag -> Collections.synchronizedList(new ArrayList<>())).add(number);
            count.incrementAndGet();
            return ConsumeOrderlyStatus.SUCCESS;
        });
        consumer.start();
        Check.await(() -> orders * steps + " messages, have " + count, 30,
            () -> count.get() >= orders * steps ? true : null);
        for (int order = 0; order < orders; order++) {
            int first = order;
            List<Integer> expected = IntStream.range(0, steps).mapToObj(step -> step * orders + first)
                .collect(Collectors.toList());
            Check.equal("sequence of order " + order, expected, seen.get("order-" + order));
        }
    }

    /** Two members of a group share the queues, and each message reaches one of them. */
    static void clustering(Scope scope) throws Exception {
        scope.send(0, 4, "TagA");
        int queues = scope.queues(scope.topic).size();
        DefaultMQPushConsumer first = scope.consumer("*");
        DefaultMQPushConsumer second = scope.consumer("*");
        List<MessageExt> atFirst = scope.collect(first);
        List<MessageExt> atSecond = scope.collect(second);
        Check.await(() -> "half of " + queues + " queues each, have " + held(scope, first) + " and "
            + held(scope, second), 30, () -> held(scope, first) == queues / 2
            && held(scope, second) == queues - queues / 2 ? true : null);
        // The first four may come twice: queues were changing hands. The rest must not.
        Check.await("the first messages", 20, () -> all(atFirst, atSecond, "Tag").size() >= 4 ? true : null);
        scope.send(4, 44, "TagB");
        Check.await(() -> "40 messages, have " + all(atFirst, atSecond, "TagB").size(), 30,
            () -> all(atFirst, atSecond, "TagB").size() >= 40 ? true : null);
        scope.checkMessages(all(atFirst, atSecond, "TagB"), 4, 44, "TagB");
        // A producer that sends once more goes on to another queue, so the halves may differ a little.
        int share = all(atFirst, List.of(), "TagB").size();
        Check.that(share >= 16 && share <= 24, "half of 40 messages at the first member, have " + share);
    }

    private static int held(Scope scope, DefaultMQPushConsumer consumer) {
        int count = 0;
        for (MessageQueue queue : consumer.getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable()
            .keySet()) {
            count += queue.getTopic().equals(scope.topic) ? 1 : 0;
        }
        return count;
    }

    private static List<MessageExt> all(List<MessageExt> first, List<MessageExt> second, String tag) {
        List<MessageExt> all = new ArrayList<>();
        for (List<MessageExt> part : List.of(first, second)) {
            synchronized (part) {
                part.stream().filter(message -> message.getTags().startsWith(tag)).forEach(all::add);
            }
        }
        return all;
    }

    /** Two members of a broadcasting group each get everything. */
    static void broadcasting(Scope scope) throws Exception {
        scope.send(0, 20, "TagA");
        scope.queues(scope.topic);
        List<List<MessageExt>> members = new ArrayList<>();
        for (int i = 0; i < 2; i++) {
            DefaultMQPushConsumer consumer = scope.consumer("*");
            // The enum moved to another package between 4.9 and 5; its name is therefore not written here.
            consumer.setMessageModel(Enum.valueOf(consumer.getMessageModel().getDeclaringClass(), "BROADCASTING"));
            members.add(scope.collect(consumer));
        }
        for (List<MessageExt> received : members) {
            Scope.awaitCount(received, 20);
            scope.checkMessages(received, 0, 20, "TagA");
        }
    }

    /** A subscription to two of three tags gets those two only. */
    static void tags(Scope scope) throws Exception {
        for (int i = 0; i < 10; i++) {
            scope.send(3 * i, 3 * i + 1, "TagA");
            scope.send(3 * i + 1, 3 * i + 2, "TagB");
            scope.send(3 * i + 2, 3 * i + 3, "TagC");
        }
        scope.queues(scope.topic);
        List<MessageExt> received = scope.collect(scope.consumer("TagA || TagC"));
        Scope.awaitCount(received, 20);
        Check.equal("messages with TagB", 0L,
            received.stream().filter(message -> message.getTags().equals("TagB")).count());
        Check.equal("messages with TagA", 10L,
            received.stream().filter(message -> message.getTags().equals("TagA")).count());
        Check.equal("bodies",
            IntStream.range(0, 30).filter(i -> i % 3 != 1).mapToObj(i -> new String(scope.body(i))).sorted()
                .collect(Collectors.toList()),
            received.stream().map(message -> new String(message.getBody())).sorted().collect(Collectors.toList()));
    }
}
