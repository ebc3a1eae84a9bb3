// Threads, direct buffers, compression and many classes (lambdas), on top of what the compiler asks.
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.TreeMap;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.zip.Deflater;
import java.util.zip.Inflater;

public class Work {
    static String work(int seed) throws Exception {
        MessageDigest digest = MessageDigest.getInstance("SHA-256");
        for (int i = 0; i < 400; i++) {
            byte[] bytes = new byte[1 + (i * 7919 + seed) % 60000];
            for (int at = 0; at < bytes.length; at++) bytes[at] = (byte) (at * seed % 251);
            ByteBuffer direct = ByteBuffer.allocateDirect(bytes.length);
            direct.put(bytes).flip();
            digest.update(direct);
            Deflater deflater = new Deflater();
            deflater.setInput(bytes);
            deflater.finish();
            byte[] packed = new byte[bytes.length + 100];
            int length = deflater.deflate(packed);
            deflater.end();
            Inflater inflater = new Inflater();
            inflater.setInput(packed, 0, length);
            byte[] back = new byte[bytes.length];
            inflater.inflate(back);
            inflater.end();
            if (!Arrays.equals(back, bytes)) throw new IllegalStateException("differs");
        }
        return HexFormat.of().formatHex(digest.digest());
    }

    public static void main(String[] arguments) throws Exception {
        boolean system = Files.readString(Path.of("/proc/self/maps")).contains("[heap]");
        System.err.print(system ? "break" : "none");
        var threads = Executors.newFixedThreadPool(4);
        var results = new TreeMap<Integer, Future<String>>();
        for (int i = 1; i <= 12; i++) {
            int seed = i;
            results.put(i, threads.submit(() -> work(seed)));
        }
        for (var result : results.values()) System.out.println(result.get());
        threads.shutdown();
        TreeMap<Long, Long> counts = IntStream.range(0, 200000).boxed()
            .collect(Collectors.groupingBy(i -> i * 31L % 97, TreeMap::new, Collectors.counting()));
        System.out.println(counts);
    }
}
