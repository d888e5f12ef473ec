/* Ground truth for stacks through Java code. Nothing in it may be inlined (`-XX:CompileCommand=dontinline,known.Stacks::*`),
 * so that every method has frames of its own; `work` is short, so that many samples hit where frames are made and left.
 *
 * usage: Stacks MODE MILLISECONDS      says `ready`, waits for a line, works for that time in a thread of its own (`waits`: in
 *                              several), says what it did, waits for the end of its input
 *     callers   `work` below `half`, `third` and `fifth`, by chance in the ratio 5:3:2
 *     deep      `work`, now longer, below 60 calls of `deep`
 *     waits     threads that park, sleep, wait for a monitor and for a notification
 *     collect   COLLECTIONS collections that are asked for, with ALLOCATED bytes before each
 *
 * In the language of JDK 8. */
package known;

import java.util.concurrent.locks.LockSupport;

public class Stacks {
    static final int DEPTH = 60;
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

    static long half(long x) {
        return several(x, x + 1, x + 2, x + 3, x + 4, x + 5, x + 6, x + 7) ^ 1;
    }

    static long third(long x) {
        return several(x, x + 1, x + 2, x + 3, x + 4, x + 5, x + 6, x + 7) ^ 2;
    }

    static long fifth(long x) {
        return several(x, x + 1, x + 2, x + 3, x + 4, x + 5, x + 6, x + 7) ^ 3;
    }

    /* No concatenation, for which the JVM would make classes. */
    static void say(Object... parts) {
        StringBuilder text = new StringBuilder("{");
        for (int i = 0; i < parts.length; i += 2)
            text.append(i > 0 ? ",\"" : "\"").append(parts[i]).append("\":").append(parts[i + 1]);
        System.out.println(text.append("}"));
    }

    static void round(long[] counts) {
        long sum = 0;
        for (int i = 0; i < 1_000; i++) {
            random = random * 6364136223846793005L + 1442695040888963407L;
            long choice = (random >>> 33) % 10;
            if (choice < 5) {
                sum += half(i);
                counts[0]++;
            } else if (choice < 8) {
                sum += third(i);
                counts[1]++;
            } else {
                sum += fifth(i);
                counts[2]++;
            }
        }
        sink = sum;
    }

    static void callers() {
        long[] counts = new long[3];
        while (System.nanoTime() < end) round(counts);
        say("half", counts[0], "third", counts[1], "fifth", counts[2]);
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

    /* How often the collectors were at work, and for how long. */
    static long[] collected() {
        long[] sums = new long[2];
        for (java.lang.management.GarbageCollectorMXBean collector :
                 java.lang.management.ManagementFactory.getGarbageCollectorMXBeans()) {
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
        for (int i = 0; i < 300; i++) round(new long[3]);
        for (int i = 0; i < 2_000; i++) sink = deep(DEPTH, 10);
        System.out.println("ready");
        System.in.read();
        // Half a second in which the profiler gets to know the process.
        end = System.nanoTime() + 500_000_000;
        long[] before = new long[3];
        while (System.nanoTime() < end) round(before);
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
                Thread[] threads = {
                    start("known-parks", Stacks::parks), start("known-sleeps", Stacks::sleeps),
                    start("known-locks", Stacks::locks), start("known-awaits", Stacks::awaits),
                    start("known-holds-\u65e5\u672c\u8a9e", Stacks::hold) };
                for (Thread thread : threads) thread.join();
                say("waited", waited);
        }
        // Names are read while it lives.
        while (System.in.read() >= 0) { }
    }
}
