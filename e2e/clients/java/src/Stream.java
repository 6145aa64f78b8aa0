import java.nio.ByteBuffer;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.locks.LockSupport;

import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * A producer or a push consumer that goes on until its standard input ends, and says what came of each
 * message. Times are nanoseconds of the machine's monotonic clock.
 *
 * <p>Arguments: name server, `produce`, `produce-ordered`, `consume` or `consume-ordered`, topic, group,
 * name of the instance, its number, milliseconds between route polls.
 *
 * <p>Lines of a producer: `sent BEGIN END NUMBER QUEUE OFFSET`, or `failed BEGIN END NUMBER REASON`.
 * Lines of a consumer: `got BEGIN END NUMBER QUEUE OFFSET`. Everybody says `ready` first.
 *
 * <p>A body is the message's number in 8 bytes. `produce` leaves a message that failed as it is and goes on with
 * the next. `produce-ordered` gives a number `KEY &lt;&lt; 32 | SEQUENCE` and sends each until it is acknowledged,
 * so whatever the consumer meets for the first time has to be the next of its key.
 */
public final class Stream {
    private static final int KEYS = 16;
    private static final long PACE_NANOS = 5_000_000;
    private static final long PAUSE_NANOS = 50_000_000;

    private final String topic;
    private final AtomicBoolean over = new AtomicBoolean();

    private Stream(String topic) {
        this.topic = topic;
    }

    public static void main(String[] words) throws Exception {
        String namesrv = words[0], group = words[3], instance = words[4];
        int number = Integer.parseInt(words[5]), poll = Integer.parseInt(words[6]);
        Stream stream = new Stream(words[2]);
        Thread ending = new Thread(stream::waitForTheEnd);
        ending.setDaemon(true);
        ending.start();
        if (words[1].startsWith("produce")) {
            DefaultMQProducer producer = new DefaultMQProducer(group);
            producer.setNamesrvAddr(namesrv);
            producer.setInstanceName(instance);
            producer.setPollNameServerInterval(poll);
            producer.start();
            say("ready");
            if (words[1].equals("produce")) {
                stream.produce(producer, number);
            } else {
                stream.produceInOrder(producer);
            }
            producer.shutdown();
            return;
        }
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(namesrv);
        consumer.setInstanceName(instance);
        consumer.setPollNameServerInterval(poll);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe(stream.topic, "*");
        if (words[1].equals("consume")) {
            consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
                take(messages, 0);
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
        } else {
            consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
                // Long enough that two who work at once are seen to.
                take(messages, 2_000_000);
                return ConsumeOrderlyStatus.SUCCESS;
            });
        }
        consumer.start();
        say("ready");
        ending.join();
        consumer.shutdown();
        // An ordered consumer of 5.5.0 leaves threads behind.
        System.exit(0);
    }

    private void waitForTheEnd() {
        try {
            while (System.in.read() >= 0) {
                continue;
            }
        } catch (java.io.IOException ended) {
            // As an end.
        }
        over.set(true);
    }

    private void produce(DefaultMQProducer producer, int number) {
        for (long count = 1; !over.get(); count++) {
            Message message = message((long) number << 40 | count);
            send((long) number << 40 | count, () -> producer.send(message));
        }
    }

    private void produceInOrder(DefaultMQProducer producer) {
        for (long sequence = 0; !over.get(); sequence++) {
            for (long key = 0; key < KEYS && !over.get(); key++) {
                long number = key << 32 | sequence, queue = key;
                boolean acknowledged = false;
                while (!acknowledged && !over.get()) {
                    acknowledged = send(number, () -> producer.send(message(number),
                        (queues, of, unused) -> queues.get((int) (queue % queues.size())), null));
                }
            }
        }
    }

    private interface Sending {
        SendResult run() throws Exception;
    }

    /** Whether it was acknowledged; any other status means unknown. */
    private static boolean send(long number, Sending sending) {
        long begin = System.nanoTime();
        String reason;
        try {
            SendResult result = sending.run();
            if (result.getSendStatus() == SendStatus.SEND_OK) {
                say("sent " + begin + " " + System.nanoTime() + " " + number + " "
                    + result.getMessageQueue().getQueueId() + " " + result.getQueueOffset());
                LockSupport.parkNanos(PACE_NANOS);
                return true;
            }
            reason = result.getSendStatus().name();
        } catch (Exception error) {
            reason = reason(error);
        }
        say("failed " + begin + " " + System.nanoTime() + " " + number + " " + reason);
        LockSupport.parkNanos(PAUSE_NANOS);
        return false;
    }

    private Message message(long number) {
        Message message = new Message(topic, ByteBuffer.allocate(8).putLong(number).array());
        message.setKeys("k" + number);
        return message;
    }

    private static String reason(Throwable error) {
        String name = error.getClass().getSimpleName();
        if (error instanceof MQBrokerException) {
            return name + "-" + ((MQBrokerException) error).getResponseCode();
        }
        if (error instanceof MQClientException && error.getCause() != null) {
            return name + "/" + reason(error.getCause());
        }
        return error instanceof MQClientException ? name + "-" + ((MQClientException) error).getResponseCode() : name;
    }

    private static void take(List<MessageExt> messages, long nanos) {
        for (MessageExt message : messages) {
            long begin = System.nanoTime();
            if (nanos > 0) {
                LockSupport.parkNanos(nanos);
            }
            say("got " + begin + " " + System.nanoTime() + " " + ByteBuffer.wrap(message.getBody()).getLong() + " "
                + message.getQueueId() + " " + message.getQueueOffset());
        }
    }

    private static synchronized void say(String line) {
        System.out.println(line);
        System.out.flush();
    }
}
