import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.producer.DefaultMQProducer;

/**
 * Runs features of the Java remoting client against one cluster, several at a time.
 *
 * Arguments: name server, prefix of topic and group names, features separated by commas. Prints
 * one line a feature: `RESULT name ok seconds` or `RESULT name fail reason`.
 */
public final class Matrix {
    private static final int AT_ONCE = 5;

    interface Feature {
        void run(Scope scope) throws Exception;
    }

    private Matrix() {
    }

    private static Map<String, Feature> features() {
        Map<String, Feature> features = new LinkedHashMap<>();
        // The slow ones first, so that the quick ones fill the gaps.
        features.put("retry", Recovery::retry);
        features.put("dlq", Recovery::deadLetter);
        features.put("offsets", Recovery::offsets);
        features.put("ordered", Consuming::ordered);
        features.put("push", Consuming::clustering);
        features.put("broadcast", Consuming::broadcasting);
        features.put("sync", Sending::sync);
        features.put("async", Sending::async);
        features.put("oneway", Sending::oneWay);
        features.put("batch", Sending::batch);
        features.put("tags", Consuming::tags);
        features.put("lite-pull", Pulling::lite);
        features.put("pull", Pulling::classic);
        features.put("query", Lookups::query);
        return features;
    }

    public static void main(String[] args) throws Exception {
        String namesrv = args[0];
        String prefix = args[1];
        Map<String, Feature> features = features();
        if (args.length > 2) {
            features.keySet().retainAll(Arrays.asList(args[2].split(",")));
        }
        DefaultMQProducer producer = Scope.configure(new DefaultMQProducer("p-" + prefix), namesrv);
        producer.setSendMsgTimeout(5000);
        producer.start();

        ExecutorService workers = Executors.newFixedThreadPool(AT_ONCE);
        CountDownLatch reported = new CountDownLatch(features.size());
        features.forEach((name, feature) -> workers.execute(() -> {
            long start = System.nanoTime();
            String outcome;
            Scope scope = new Scope(namesrv, prefix, name, producer);
            try {
                feature.run(scope);
                outcome = String.format(Locale.ROOT, "ok %.2f", (System.nanoTime() - start) / 1e9);
            } catch (Throwable e) {
                e.printStackTrace();
                outcome = "fail " + String.valueOf(e).replaceAll("\\s+", " ");
            }
            System.out.println("RESULT " + name + " " + outcome);
            reported.countDown();
            scope.close();
        }));
        reported.await();
        workers.shutdown();
        workers.awaitTermination(10, TimeUnit.SECONDS);
        producer.shutdown();
        System.exit(0);
    }
}
