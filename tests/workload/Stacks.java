/* Ground truth for stacks through Java code. Nothing in it may be inlined (`-XX:CompileCommand=dontinline,known.Stacks::*`),
 * so that every method has frames of its own; `work` is short, so that many samples hit where frames are made and left.
 *
 * usage: Stacks MODE MILLISECONDS      says `ready`, waits for a line, works for that time in a thread of its own (`waits`: in
 *                              several), says what it did, waits for the end of its input
 *     callers   `work` below `half`, `third` and `fifth`, chosen in the ratio 5:3:2, and how often and for how long each
 *               (CPU time: a call on a path that is taken less often is predicted worse, and takes longer)
 *     deep      `work`, now longer, below 60 calls of `deep`
 *     waits     threads that park, sleep, read from a socket, wait for a monitor and for a notification
 *     collect   COLLECTIONS collections that are asked for, with ALLOCATED bytes before each
 *
 * In the language of JDK 8. */
package known;

import java.io.IOException;
import java.io.InputStream;
import java.lang.management.GarbageCollectorMXBean;
import java.lang.management.ManagementFactory;
import java.lang.management.ThreadMXBean;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.concurrent.locks.LockSupport;

public class Stacks {
    static final int DEPTH = 60;
    /* Calls in one of `half`, `third` or `fifth`. */
    static final int CALLS = 400;
    /* Of a round, ns: the clock of CPU time is a system call. */
    static final int ROUND = 5_000_000;
    static final ThreadMXBean clock = ManagementFactory.getThreadMXBean();
    static final int COLLECTIONS = 20;
    static final int ALLOCATED = 4 << 20;
    static final Object monitor = new Object();
    static long random = 0x9e3779b97f4a7c15L;
    static volatile long sink;
    static volatile byte[] garbage;
    static long waited;
    static long end;

    interface Step {
        long step(long x);
    }

    static long work(long x, long turns) {
        while (turns-- > 0) x = x * 6364136223846793005L + 1442695040888963407L;
        return x;
    }

    /* Some calls that have frames of several sizes, one of them by a table. */
    static final Step[] steps = {
        new Step() { public long step(long x) { return work(x, 40) + 1; } },
        new Step() { public long step(long x) { return work(x, 40) + 2; } },
        new Step() { public long step(long x) { return work(x, 40) + 3; } },
    };

    static long several(long a, long b, long c, long d, long e, long f, long g, long h) {
        long x = steps[(int) ((a & 0xff) % 3)].step(a + h);
        return x + a * b + c * d + e * f + g * h;
    }

    static long half(long sum) {
        for (long x = 0; x < CALLS; x++) sum += several(x, x + 1, x + 2, x + 3, x + 4, x + 5, x + 6, x + 7) ^ 1;
        return sum;
    }

    static long third(long sum) {
        for (long x = 0; x < CALLS; x++) sum += several(x, x + 1, x + 2, x + 3, x + 4, x + 5, x + 6, x + 7) ^ 2;
        return sum;
    }

    static long fifth(long sum) {
        for (long x = 0; x < CALLS; x++) sum += several(x, x + 1, x + 2, x + 3, x + 4, x + 5, x + 6, x + 7) ^ 3;
        return sum;
    }

    /* No concatenation, for which the JVM would make classes. */
    static void say(Object... parts) {
        StringBuilder text = new StringBuilder("{");
        for (int i = 0; i < parts.length; i += 2)
            text.append(i > 0 ? ",\"" : "\"").append(parts[i]).append("\":").append(parts[i + 1]);
        System.out.println(text.append("}"));
    }

    /* Calls one of them, at least once; adds to its calls and its CPU time. */
    static void round(long[] calls, long[] times, long ns) {
        random = random * 6364136223846793005L + 1442695040888963407L;
        long choice = (random >>> 33) % 10;
        int chosen = choice < 5 ? 0 : choice < 8 ? 1 : 2;
        long until = System.nanoTime() + ns, begin = clock.getCurrentThreadCpuTime(), sum = 0;
        do {
            if (chosen == 0) sum = half(sum);
            else if (chosen == 1) sum = third(sum);
            else sum = fifth(sum);
            calls[chosen] += CALLS;
        } while (System.nanoTime() < until);
        sink = sum;
        times[chosen] += clock.getCurrentThreadCpuTime() - begin;
    }

    static void callers() {
        long[] calls = new long[3], times = new long[3];
        while (System.nanoTime() < end) round(calls, times, ROUND);
        say("half", calls[0], "third", calls[1], "fifth", calls[2],
            "half_ns", times[0], "third_ns", times[1], "fifth_ns", times[2]);
    }

    static long deep(int left, long turns) {
        return left > 1 ? deep(left - 1, turns) + 1 : work(turns, turns);
    }

    static void dive() {
        long calls = 0;
        while (System.nanoTime() < end) {
            sink = deep(DEPTH, 20_000);
            calls++;
        }
        say("calls", calls);
    }

    static void parks() {
        while (System.nanoTime() < end) LockSupport.parkNanos(5_000_000);
    }

    static void sleeps() throws InterruptedException {
        while (System.nanoTime() < end) Thread.sleep(5);
    }

    static void locks() {
        while (System.nanoTime() < end) {
            long before = System.nanoTime();
            synchronized (monitor) {
                waited += System.nanoTime() - before;
            }
            // The holder gets it back meanwhile.
            LockSupport.parkNanos(1_000_000);
        }
    }

    static void awaits() throws InterruptedException {
        while (System.nanoTime() < end) {
            synchronized (steps) {
                steps.wait(5);
            }
        }
    }

    /* Both ends of a connection over the loopback interface. */
    static Socket[] connected() throws IOException {
        try (ServerSocket server = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
            return new Socket[] {new Socket(server.getInetAddress(), server.getLocalPort()), server.accept()};
        }
    }

    static void reads(Socket from) throws IOException {
        InputStream bytes = from.getInputStream();
        while (bytes.read() >= 0) { }
    }

    static void writes(Socket to) throws IOException {
        while (System.nanoTime() < end) {
            LockSupport.parkNanos(5_000_000);
            to.getOutputStream().write(1);
        }
        to.close();
    }

    /* How often the collectors were at work, and for how long. */
    static long[] collected() {
        long[] sums = new long[2];
        for (GarbageCollectorMXBean collector : ManagementFactory.getGarbageCollectorMXBeans()) {
            sums[0] += collector.getCollectionCount();
            sums[1] += collector.getCollectionTime();
        }
        return sums;
    }

    static void collect() {
        for (int i = 0; i < COLLECTIONS; i++) {
            for (int at = 0; at < ALLOCATED; at += 1 << 16) garbage = new byte[1 << 16];
            System.gc();
            LockSupport.parkNanos(20_000_000);
        }
    }

    static void hold() throws InterruptedException {
        while (System.nanoTime() < end) {
            synchronized (monitor) {
                Thread.sleep(10);
            }
            Thread.sleep(1);
        }
    }

    interface Task {
        void run() throws Exception;
    }

    static Thread start(String name, Task task) {
        Thread thread = new Thread(() -> {
            try {
                task.run();
            } catch (Exception e) {
                throw new RuntimeException(e);
            }
        }, name);
        thread.start();
        return thread;
    }

    public static void main(String[] arguments) throws Exception {
        // Often enough for the last compiler, and short.
        end = System.nanoTime() + 1_000_000_000;
        for (int i = 0; i < 500; i++) round(new long[3], new long[3], 0);
        for (int i = 0; i < 2_000; i++) sink = deep(DEPTH, 10);
        System.out.println("ready");
        System.in.read();
        // Half a second in which the profiler gets to know the process.
        end = System.nanoTime() + 500_000_000;
        while (System.nanoTime() < end) round(new long[3], new long[3], ROUND / 10);
        end = System.nanoTime() + Long.parseLong(arguments[1]) * 1_000_000;
        switch (arguments[0]) {
            case "callers":
                start("known-worker", Stacks::callers).join();
                break;
            case "deep":
                start("known-worker", Stacks::dive).join();
                break;
            case "collect":
                long[] begin = collected();
                start("known-allocates-and-asks", Stacks::collect).join();
                long[] after = collected();
                say("asked", COLLECTIONS, "allocated", (long) COLLECTIONS * ALLOCATED,
                    "collections", after[0] - begin[0], "ms", after[1] - begin[1]);
                break;
            default:
                Socket[] ends = connected();
                Thread[] threads = {
                    start("known-parks", Stacks::parks), start("known-sleeps", Stacks::sleeps),
                    start("known-locks", Stacks::locks), start("known-awaits", Stacks::awaits),
                    start("known-reads", () -> reads(ends[0])), start("known-writes", () -> writes(ends[1])),
                    start("known-holds-\u65e5\u672c\u8a9e", Stacks::hold) };
                for (Thread thread : threads) thread.join();
                say("waited", waited);
        }
        // Names are read while it lives.
        while (System.in.read() >= 0) { }
    }
}
