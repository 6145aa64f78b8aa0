import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import org.apache.rocketmq.tools.command.MQAdminStartup;

/**
 * Runs each line of its input as a command of Apache's mqadmin, all in one JVM. Prints what the
 * command prints, exceptions too, and then a line with END.
 */
public final class Session {
    private Session() {
    }

    public static void main(String[] args) throws IOException {
        System.setErr(System.out);
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in));
        for (String command = commands.readLine(); command != null; command = commands.readLine()) {
            MQAdminStartup.main0(command.split(" "), null);
            System.out.println("\nEND");
            System.out.flush();
        }
        System.exit(0);
    }
}
