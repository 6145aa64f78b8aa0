package golden;

import java.nio.file.Path;

/** remoting DIR | message DIR WORK | send NAMESRV SENT.json | store STORE_DIR SENT.json DIR */
public final class Main {
    public static void main(String[] a) throws Exception {
        try {
            run(a);
        } catch (Throwable e) {
            e.printStackTrace();
            System.exit(1);
        }
        System.exit(0);
    }

    private static void run(String[] a) throws Exception {
        switch (a[0]) {
            case "remoting" -> Remoting.run(Path.of(a[1]));
            case "message" -> Messages.run(Path.of(a[1]), Path.of(a[2]));
            case "send" -> RealStore.send(a[1], Path.of(a[2]));
            case "store" -> RealStore.collect(Path.of(a[1]), Path.of(a[2]), Path.of(a[3]));
            default -> throw new IllegalArgumentException(a[0]);
        }
    }
}
