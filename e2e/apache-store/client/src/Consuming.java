import com.alibaba.fastjson.JSONObject;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;

/** Consumes as a group. */
final class Consuming {
    private static final AtomicInteger INSTANCES = new AtomicInteger();

    /**
     * Fields: group, topic, count (messages to wait for), seconds (how long at most), level: with
     * it each message fails and comes back after that delay. Answers what came, in no order.
     */
    static List<Map<String, Object>> consume(String namesrv, JSONObject request) throws Exception {
        List<Map<String, Object>> received = Collections.synchronizedList(new ArrayList<>());
        Integer level = request.getInteger("level");
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(request.getString("group"));
        consumer.setNamesrvAddr(namesrv);
        consumer.setInstanceName("consumer-" + INSTANCES.incrementAndGet());
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setPersistConsumerOffsetInterval(500);
        consumer.subscribe(request.getString("topic"), "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            for (MessageExt message : messages) {
                received.add(Reading.describe(message));
            }
            if (level == null) {
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            }
            context.setDelayLevelWhenNextConsume(level);
            return ConsumeConcurrentlyStatus.RECONSUME_LATER;
        });
        consumer.start();
        try {
            long deadline = System.nanoTime() + request.getIntValue("seconds") * 1_000_000_000L;
            while (received.size() < request.getIntValue("count") && System.nanoTime() < deadline) {
                Thread.sleep(50);
            }
            // Whatever should not come has a moment to come, and what came is committed.
            Thread.sleep(1_200);
        } finally {
            consumer.shutdown();
        }
        return new ArrayList<>(received);
    }
}
