/* Ground truth for Java: `turn` is inlined into `three` and `one`, which are called in the ratio 3:1 by chance, with the
 * same work each. The loop ends at a number that the compiler does not know, so that it keeps a safepoint inside it.
 *
 * usage: Split split MILLISECONDS     says `ready`, waits for a line, splits its time, says what it did,
 *                              waits for the end of its input
 *        Split many                   has many methods compiled, says `ready`, waits for the end of its input
 *        Split churn                  the same again and again, in classes that come and go, until its input ends
 *
 * In the language of JDK 8. */
package known;

import java.lang.invoke.MethodHandle;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.MethodType;
import java.lang.reflect.Method;
import java.net.URL;
import java.net.URLClassLoader;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.IntUnaryOperator;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

public class Split {
    static final long TURNS = 20_000;
    static long sink;
    static long random = 0x9e3779b97f4a7c15L;

    static long turn(long x, long turns) {
        while (turns-- > 0) x = x * 6364136223846793005L + 1442695040888963407L; // turn
        return x;
    }

    static long three(long x, long turns) {
        return turn(x, turns) ^ 3; // three
    }

    static long one(long x, long turns) {
        return turn(x, turns) ^ 1; // one
    }

    static long calls(long count, long turns) {
        long threes = 0;
        for (long i = 0; i < count; i++) {
            random = random * 6364136223846793005L + 1442695040888963407L;
            if ((random >>> 33) % 4 != 0) {
                sink += three(i, turns);
                threes++;
            } else {
                sink += one(i, turns);
            }
        }
        return threes;
    }

    static void split(long milliseconds) throws Exception {
        // Often enough for the last compiler, and short.
        for (int i = 0; i < 40; i++) calls(1_000, 100);
        System.out.println("ready");
        System.in.read();
        long end = System.nanoTime() + milliseconds * 1_000_000;
        long calls = 0;
        long threes = 0;
        while (System.nanoTime() < end) {
            threes += calls(10, TURNS);
            calls += 10;
        }
        System.out.println("{\"calls\":" + calls + ",\"threes\":" + threes + ",\"sink\":" + sink + "}");
        // Names are read while it lives.
        while (System.in.read() >= 0) { }
    }

    /* Text, collections, streams, lambdas, method handles, exceptions: what the JVM has most kinds of code for. */
    static void many(int rounds) throws Throwable {
        MethodHandle handle = MethodHandles.lookup().findVirtual(String.class, "length", MethodType.methodType(int.class));
        for (int round = 0; round < rounds; round++) {
            Map<String, List<Integer>> map = new HashMap<>();
            for (int i = 0; i < 200; i++) {
                String key = String.format("%s-%05.1f", Integer.toHexString(i % 37), i / 3.0);
                map.computeIfAbsent(key, none -> new ArrayList<>()).add(i);
                sink += (int) handle.invokeExact(key);
            }
            IntUnaryOperator operator = n -> n * 31 + 7;
            String joined = IntStream.range(0, 200).map(operator).mapToObj(Integer::toString)
                .sorted().collect(Collectors.joining(","));
            sink += joined.split("[,7]+").length + map.keySet().stream().mapToInt(String::hashCode).sum();
            try {
                Integer.parseInt(joined);
            } catch (NumberFormatException expected) {
                sink += expected.getMessage().length();
            }
        }
    }

    /* Its own class from a loader of its own, which can go when the thread has ended. */
    static void again() throws Exception {
        URL own = Split.class.getProtectionDomain().getCodeSource().getLocation();
        try (URLClassLoader loader = new URLClassLoader(new URL[] {own}, null)) {
            Method calls = loader.loadClass("known.Split").getDeclaredMethod("calls", long.class, long.class);
            calls.setAccessible(true);
            for (int i = 0; i < 30; i++) calls.invoke(null, 1_000L, 100L);
        }
    }

    public static void main(String[] arguments) throws Throwable {
        switch (arguments[0]) {
            case "split":
                split(Long.parseLong(arguments[1]));
                break;
            case "many":
                many(300);
                System.out.println("ready");
                while (System.in.read() >= 0) { }
                break;
            default:
                many(20);
                System.out.println("ready");
                while (System.in.available() == 0) {
                    again();
                    many(2);
                    System.gc();
                }
        }
    }
}
