package golden;

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HexFormat;
import java.util.zip.CRC32;

/** Writes binary files and the JSON index beside them. */
final class Out {
    /** Values in the index: plain JSON of the object's fields, a map with object keys as [[key, value], ...]. */
    static final Gson VALUES = new GsonBuilder().disableHtmlEscaping().enableComplexMapKeySerialization()
        .setExclusionStrategies(new com.google.gson.ExclusionStrategy() {
            @Override public boolean shouldSkipField(com.google.gson.FieldAttributes f) {
                return f.getDeclaredClass() == java.util.Random.class;
            }
            @Override public boolean shouldSkipClass(Class<?> c) {
                return false;
            }
        }).create();
    static final Gson PRETTY = new GsonBuilder().disableHtmlEscaping().serializeNulls().setPrettyPrinting().create();
    static final Gson LINE = new GsonBuilder().disableHtmlEscaping().serializeNulls().create();
    static final String MADE_BY = "Apache RocketMQ 5.5.0";

    final Path dir;
    final JsonObject index = new JsonObject();

    Out(Path dir) throws Exception {
        this.dir = Files.createDirectories(dir);
        index.addProperty("madeBy", MADE_BY);
    }

    JsonObject file(String list, String name, byte[] bytes) throws Exception {
        Path p = dir.resolve(name);
        Files.createDirectories(p.getParent());
        Files.write(p, bytes);
        JsonObject e = new JsonObject();
        e.addProperty("file", name);
        e.addProperty("size", bytes.length);
        list(list).add(e);
        return e;
    }

    JsonArray list(String list) {
        if (!index.has(list)) index.add(list, new JsonArray());
        return index.getAsJsonArray(list);
    }

    /** JSON with one line for each entry of the top-level lists. */
    void writeIndex(String name) throws Exception {
        StringBuilder b = new StringBuilder("{");
        String sep = "\n";
        for (var e : index.entrySet()) {
            b.append(sep).append(LINE.toJson(e.getKey())).append(": ");
            if (e.getValue().isJsonArray()) {
                String s = "[\n  ";
                for (JsonElement x : e.getValue().getAsJsonArray()) {
                    b.append(s).append(LINE.toJson(x));
                    s = ",\n  ";
                }
                b.append(s.startsWith("[") ? "[]" : "\n]");
            } else b.append(LINE.toJson(e.getValue()));
            sep = ",\n";
        }
        Files.writeString(dir.resolve(name), b.append("\n}\n"));
    }

    static JsonElement value(Object o) {
        return VALUES.toJsonTree(o);
    }

    static long crc(byte[] b) {
        CRC32 c = new CRC32();
        c.update(b);
        return c.getValue();
    }

    static String hex(byte[] b) {
        return HexFormat.of().formatHex(b);
    }

    static byte[] utf8(String s) {
        return s.getBytes(StandardCharsets.UTF_8);
    }
}
