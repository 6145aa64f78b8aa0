import com.alibaba.fastjson.JSON;
import com.alibaba.fastjson.JSONObject;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Map;

/**
 * Does what run.py asks, one JSON object a line on stdin, one a line on stdout:
 * {"do": "send" | "dump" | "find" | "consume" | "committed", …} is answered with {"ok": …} or
 * {"error": "…"}. The argument is the name server's address.
 */
public final class Main {
    public static void main(String[] args) throws Exception {
        // What a library prints must not get between the answers.
        PrintStream answers = System.out;
        System.setOut(System.err);
        BufferedReader requests = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        String line;
        while ((line = requests.readLine()) != null) {
            JSONObject answer = new JSONObject();
            try {
                answer.put("ok", act(args[0], JSON.parseObject(line)));
            } catch (Throwable failure) {
                failure.printStackTrace();
                answer.put("error", String.valueOf(failure));
            }
            answers.write((answer.toJSONString() + "\n").getBytes(StandardCharsets.UTF_8));
            answers.flush();
        }
        // Threads of clients that were not closed in time must not hold the process.
        System.exit(0);
    }

    private static Object act(String namesrv, JSONObject request) throws Exception {
        switch (request.getString("do")) {
            case "send":
                return Sending.send(namesrv, request);
            case "dump":
                return Reading.dump(namesrv, request.getJSONArray("topics").toJavaList(String.class));
            case "find":
                return Reading.find(namesrv, request.getJSONArray("messages").toJavaList(Map.class));
            case "consume":
                return Consuming.consume(namesrv, request);
            case "committed":
                return Reading.committed(namesrv, request.getString("group"), request.getString("topic"));
            default:
                throw new IllegalArgumentException("cannot do " + request.getString("do"));
        }
    }
}
