import com.alibaba.fastjson.JSONObject;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageAccessor;
import org.apache.rocketmq.common.message.MessageExt;

/** Sends messages of one kind, whose contents follow from topic, name and number. */
final class Sending {
    private static final AtomicInteger INSTANCES = new AtomicInteger();

    /** Fields: kind, topic, name, count, bytes (of a body), level (of a delay), queue. */
    static List<Map<String, Object>> send(String namesrv, JSONObject request) throws Exception {
        String kind = request.getString("kind");
        boolean isTransaction = kind.equals("half");
        DefaultMQProducer producer = isTransaction ? undecided() : new DefaultMQProducer("store-test-producers");
        producer.setNamesrvAddr(namesrv);
        producer.setInstanceName("producer-" + INSTANCES.incrementAndGet());
        producer.setSendMsgTimeout(10_000);
        producer.setRetryTimesWhenSendFailed(5);
        if (kind.equals("large")) {
            producer.setCompressMsgBodyOverHowmuch(Integer.MAX_VALUE);
        }
        producer.start();
        try {
            List<Message> messages = new ArrayList<>();
            for (int i = 0; i < request.getIntValue("count"); i++) {
                messages.add(message(request, kind, i));
            }
            List<Map<String, Object>> sent = new ArrayList<>();
            if (kind.equals("batch")) {
                SendResult result = checked(producer.send(messages));
                sent.add(describe(result));
                return sent;
            }
            for (Message message : messages) {
                SendResult result;
                if (isTransaction) {
                    result = producer.sendMessageInTransaction(message, null);
                } else if (kind.equals("ordered")) {
                    result = producer.send(message, (queues, m, queue) -> queues.get((Integer) queue), request.getIntValue("queue"));
                } else {
                    result = producer.send(message);
                }
                sent.add(describe(checked(result)));
            }
            return sent;
        } finally {
            producer.shutdown();
        }
    }

    private static Message message(JSONObject request, String kind, int i) {
        String name = request.getString("name") + "-" + i;
        byte[] body = Arrays.copyOf((name + " wärme ").getBytes(java.nio.charset.StandardCharsets.UTF_8),
            Math.max(request.getIntValue("bytes"), 40));
        if (kind.equals("large")) {
            // Noise, so that nothing makes it smaller on its way.
            byte[] noise = new byte[body.length - 40];
            new Random(i).nextBytes(noise);
            System.arraycopy(noise, 0, body, 40, noise.length);
        }
        Message message = new Message(request.getString("topic"), body);
        if (!kind.equals("plain")) {
            message.setTags(i % 2 == 0 ? "Even" : "Odd");
            message.setKeys(Arrays.asList("key-" + name, "pair-" + i / 2));
            message.putUserProperty("text", "größe " + i);
        }
        if (kind.equals("delayed")) {
            message.setDelayTimeLevel(request.getIntValue("level"));
        }
        if (kind.equals("timer")) {
            MessageAccessor.putProperty(message, "TIMER_DELAY_SEC", request.getString("seconds"));
        }
        return message;
    }

    private static Map<String, Object> describe(SendResult result) {
        Map<String, Object> described = new HashMap<>();
        described.put("topic", result.getMessageQueue().getTopic());
        described.put("queue", result.getMessageQueue().getQueueId());
        described.put("offset", result.getQueueOffset());
        described.put("id", result.getOffsetMsgId());
        described.put("unique", result.getMsgId());
        return described;
    }

    private static SendResult checked(SendResult result) {
        if (result.getSendStatus() != SendStatus.SEND_OK) {
            throw new IllegalStateException("send ended with " + result.getSendStatus());
        }
        return result;
    }

    /** A producer that never says what becomes of its transactions. */
    private static TransactionMQProducer undecided() {
        TransactionMQProducer producer = new TransactionMQProducer("store-test-transactions");
        producer.setTransactionListener(new TransactionListener() {
            @Override
            public LocalTransactionState executeLocalTransaction(Message message, Object argument) {
                return LocalTransactionState.UNKNOW;
            }

            @Override
            public LocalTransactionState checkLocalTransaction(MessageExt message) {
                return LocalTransactionState.UNKNOW;
            }
        });
        return producer;
    }
}
