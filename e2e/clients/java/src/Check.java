import java.util.concurrent.Callable;
import java.util.function.Supplier;

/** Assertions and bounded waits. */
final class Check {
    private Check() {
    }

    static void that(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    static void equal(String what, Object expected, Object actual) {
        that(expected.equals(actual), what + ": expected " + expected + ", got " + actual);
    }

    static <T> T await(String what, int seconds, Callable<T> probe) throws Exception {
        return await(() -> what, seconds, probe);
    }

    /** Asks `probe` until it answers something; an exception means not yet, and is named when time is up. */
    static <T> T await(Supplier<String> what, int seconds, Callable<T> probe) throws Exception {
        long end = System.nanoTime() + seconds * 1_000_000_000L;
        Exception last = null;
        while (System.nanoTime() < end) {
            try {
                T value = probe.call();
                if (value != null) {
                    return value;
                }
                last = null;
            } catch (Exception e) {
                last = e;
            }
            Thread.sleep(20);
        }
        throw new AssertionError("waited " + seconds + " s for " + what.get() + (last == null ? "" : ": " + last));
    }
}
