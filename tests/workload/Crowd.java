/* A large JVM: many threads, and many compiled methods, by the same class in many loaders. With
 * `-Xcomp -XX:CompileCommand=compileonly,known.Crowd$Small::*` each method is compiled when it is first called.
 *
 * usage: Crowd THREADS LOADERS MILLISECONDS   has 21 methods compiled by LOADERS loaders, says `ready`, waits for a line, works in
 *                              THREADS threads, says what it did, waits for the end of its input
 *
 * In the language of JDK 8. */
package known;

import java.net.URL;
import java.net.URLClassLoader;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.LongUnaryOperator;

public class Crowd {
    /* Called through an interface: reflection makes code after some calls, which can take longer than all else. */
    public static class Small implements LongUnaryOperator {
        static long m0(long x) { return x + 1; }
        static long m1(long x) { return m0(x) + 1; }
        static long m2(long x) { return m1(x) + 1; }
        static long m3(long x) { return m2(x) + 1; }
        static long m4(long x) { return m3(x) + 1; }
        static long m5(long x) { return m4(x) + 1; }
        static long m6(long x) { return m5(x) + 1; }
        static long m7(long x) { return m6(x) + 1; }
        static long m8(long x) { return m7(x) + 1; }
        static long m9(long x) { return m8(x) + 1; }
        static long n0(long x) { return m9(x) + 1; }
        static long n1(long x) { return n0(x) + 1; }
        static long n2(long x) { return n1(x) + 1; }
        static long n3(long x) { return n2(x) + 1; }
        static long n4(long x) { return n3(x) + 1; }
        static long n5(long x) { return n4(x) + 1; }
        static long n6(long x) { return n5(x) + 1; }
        static long n7(long x) { return n6(x) + 1; }
        static long n8(long x) { return n7(x) + 1; }
        static long n9(long x) { return n8(x) + 1; }
        public long applyAsLong(long x) {
            for (int i = 0; i < 2_000; i++) x = n9(x) * 31;
            return x;
        }
    }

    static LongUnaryOperator small(URL from) throws Exception {
        URLClassLoader loader = new URLClassLoader(new URL[] {from}, null);
        return (LongUnaryOperator) loader.loadClass("known.Crowd$Small").getConstructor().newInstance();
    }

    public static void main(String[] arguments) throws Exception {
        int threads = Integer.parseInt(arguments[0]);
        LongUnaryOperator[] methods = new LongUnaryOperator[Integer.parseInt(arguments[1])];
        URL from = Crowd.class.getProtectionDomain().getCodeSource().getLocation();
        for (int i = 0; i < methods.length; i++) {
            methods[i] = small(from);
            methods[i].applyAsLong(0);
        }
        System.out.println("ready");
        System.in.read();
        long end = System.nanoTime() + Long.parseLong(arguments[2]) * 1_000_000;
        AtomicLong calls = new AtomicLong();
        Thread[] crowd = new Thread[threads];
        for (int i = 0; i < threads; i++) {
            int first = i;
            crowd[i] = new Thread(() -> {
                try {
                    for (int at = first; System.nanoTime() < end; at += 7) {
                        methods[at % methods.length].applyAsLong(1);
                        calls.incrementAndGet();
                        Thread.sleep(50);
                    }
                } catch (InterruptedException e) {
                    throw new RuntimeException(e);
                }
            }, "known-crowd-" + i);
            crowd[i].start();
        }
        for (Thread thread : crowd) thread.join();
        System.out.println("{\"calls\":" + calls + "}");
        // Names are read while it lives.
        while (System.in.read() >= 0) { }
    }
}
