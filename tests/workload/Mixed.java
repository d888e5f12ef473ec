/* Threads that each run another kind of Java code, for a part of the time of their own.
 *
 * usage: Mixed MILLISECONDS    says `ready`, waits for a line, works for that time, says the CPU time of each thread (ns),
 *                              waits for the end of its input
 *
 * Threads have the names of their methods, which are not to be inlined, as `leaf`, `small` and `area` are not; `plain` is not
 * to be compiled (`-XX:CompileCommand=...`).
 *
 * In the language of JDK 8. */
package known;

import java.io.IOException;
import java.io.InputStream;
import java.lang.invoke.MethodHandles;
import java.lang.reflect.Array;
import java.lang.reflect.Method;
import java.net.Socket;
import java.util.ArrayList;
import java.util.List;
import java.util.function.LongUnaryOperator;
import java.util.zip.Deflater;

public class Mixed {
    static final int DEPTH = 60;
    /* A step is some ten microseconds: the clock of CPU time is a system call. */
    static final long TURNS = 10_000;
    static final Object monitor = new Object();
    static volatile long sink;
    static volatile byte[] garbage;
    static long end;

    static long leaf(long x, long turns) {
        while (turns-- > 0) x = x * 6364136223846793005L + 1442695040888963407L;
        return x;
    }

    static long deep(int left, long x) {
        return left > 1 ? deep(left - 1, x) + 1 : leaf(x, TURNS);
    }

    static long recursion(long x) {
        return deep(DEPTH, x);
    }

    /* Inlined, as `leaf` is not. */
    static long turn(long x, long turns) {
        while (turns-- > 0) x = x * 6364136223846793005L + 1442695040888963407L;
        return x;
    }

    static long small(long x, long turns) {
        return turn(x, turns) ^ 1;
    }

    static long inlined(long x) {
        return small(x, TURNS);
    }

    static long plain(long x, long turns) {
        while (turns-- > 0) x = x * 6364136223846793005L + 1442695040888963407L;
        return x;
    }

    static long interpreted(long x) {
        return plain(x, TURNS / 20);
    }

    interface Shape {
        long area(long x);
    }

    static class First implements Shape {
        public long area(long x) { return leaf(x, TURNS) + 1; }
    }

    static class Second implements Shape {
        public long area(long x) { return leaf(x, TURNS) + 2; }
    }

    static class Third implements Shape {
        public long area(long x) { return leaf(x, TURNS) + 3; }
    }

    static class Fourth implements Shape {
        public long area(long x) { return leaf(x, TURNS) + 4; }
    }

    static final Shape[] shapes = {new First(), new Second(), new Third(), new Fourth()};

    static long megamorphic(long x) {
        for (Shape shape : shapes) x = shape.area(x);
        return x;
    }

    static final LongUnaryOperator lambda = y -> leaf(y, TURNS) + 1;

    static long lambdas(long x) {
        return lambda.applyAsLong(x);
    }

    public static class Unnamed implements LongUnaryOperator {
        public long applyAsLong(long x) { return leaf(x, TURNS) + 2; }
    }

    static LongUnaryOperator unnamed;

    static long hidden(long x) {
        return unnamed.applyAsLong(x);
    }

    static final Deflater deflater = new Deflater(6);
    static final byte[] text = new byte[1 << 14];
    static final byte[] packed = new byte[1 << 15];

    static long compresses(long x) {
        for (int i = 0; i < text.length; i += 5) text[i] = (byte) (x >>> i);
        deflater.reset();
        deflater.setInput(text);
        deflater.finish();
        return x + deflater.deflate(packed);
    }

    static long allocates(long x) {
        garbage = new byte[1 << 12];
        /* So long that clearing the memory is little beside it, on machines with slow memory too. */
        return leaf(x + garbage.length, 4 * TURNS);
    }

    static long contends(long x) {
        synchronized (monitor) {
            return leaf(x, 100 * TURNS);
        }
    }

    /* The class as a hidden one; before JDK 15 there are none. */
    static LongUnaryOperator unnamed() throws Exception {
        Class<?> option;
        try {
            option = Class.forName("java.lang.invoke.MethodHandles$Lookup$ClassOption");
        } catch (ClassNotFoundException none) {
            return new Unnamed();
        }
        Object options = Array.newInstance(option, 0);
        Method define = MethodHandles.Lookup.class.getMethod(
            "defineHiddenClass", byte[].class, boolean.class, options.getClass());
        Object lookup = define.invoke(MethodHandles.lookup(), Reuse.bytes("known.Mixed$Unnamed"), true, options);
        Class<?> defined = ((MethodHandles.Lookup) lookup).lookupClass();
        return (LongUnaryOperator) defined.getConstructor().newInstance();
    }

    static class Worker implements Runnable {
        final Thread thread;
        final Stacks.Task task;
        long cpu;

        Worker(String name, Stacks.Task task) {
            this.thread = new Thread(this, name);
            this.task = task;
        }

        public void run() {
            try {
                task.run();
            } catch (Exception e) {
                throw new RuntimeException(e);
            }
            cpu = Stacks.clock.getCurrentThreadCpuTime();
        }
    }

    /* So much CPU time again and again, with pauses between of a length by chance: the timer of a profiler is periodic. */
    static void part(int ms, LongUnaryOperator step) throws InterruptedException {
        long x = ms, random = ms;
        while (System.nanoTime() < end) {
            long until = Stacks.clock.getCurrentThreadCpuTime() + ms * 1_000_000L;
            while (Stacks.clock.getCurrentThreadCpuTime() < until) x = step.applyAsLong(x);
            random = random * 6364136223846793005L + 1442695040888963407L;
            long us = 20_000 + (random >>> 33) % 10_000;
            Thread.sleep(us / 1000, (int) (us % 1000) * 1000);
        }
        sink = x;
    }

    static Worker worker(String name, int ms, LongUnaryOperator step) {
        return new Worker(name, () -> part(ms, step));
    }

    /* Blocks until there is something to read, and works for it. */
    static void reads(Socket socket) throws IOException {
        InputStream from = socket.getInputStream();
        long x = 1;
        while (from.read() >= 0) x = leaf(x, 100 * TURNS);
        sink = x;
    }

    static void writes(Socket socket) throws Exception {
        while (System.nanoTime() < end) {
            socket.getOutputStream().write(1);
            Thread.sleep(10);
        }
        socket.close();
    }

    /* Often enough for the last compiler. */
    static void warm(LongUnaryOperator step) {
        for (int i = 0; i < 500; i++) sink = step.applyAsLong(i);
    }

    public static void main(String[] arguments) throws Exception {
        unnamed = unnamed();
        LongUnaryOperator[] steps = {
            Mixed::recursion, Mixed::inlined, Mixed::megamorphic, Mixed::lambdas, Mixed::hidden, Mixed::allocates,
        };
        for (int i = 0; i < 20; i++) for (LongUnaryOperator step : steps) warm(step);
        for (int i = 0; i < 100; i++) sink = compresses(i) + interpreted(i) + contends(i);
        Socket[] ends = Stacks.connected();
        System.out.println("ready");
        System.in.read();
        end = System.nanoTime() + Long.parseLong(arguments[0]) * 1_000_000;
        List<Worker> workers = new ArrayList<>();
        workers.add(worker("recursion", 8, Mixed::recursion));
        workers.add(worker("inlined", 7, Mixed::inlined));
        workers.add(worker("megamorphic", 6, Mixed::megamorphic));
        workers.add(worker("lambdas", 5, Mixed::lambdas));
        workers.add(worker("hidden", 4, Mixed::hidden));
        workers.add(worker("compresses", 4, Mixed::compresses));
        workers.add(worker("interpreted", 3, Mixed::interpreted));
        workers.add(worker("allocates", 2, Mixed::allocates));
        workers.add(worker("contends-1", 3, Mixed::contends));
        workers.add(worker("contends-2", 3, Mixed::contends));
        workers.add(new Worker("reads", () -> reads(ends[0])));
        workers.add(new Worker("writes", () -> writes(ends[1])));
        for (Worker worker : workers) worker.thread.start();
        for (Worker worker : workers) worker.thread.join();
        Object[] said = new Object[2 * workers.size()];
        for (int i = 0; i < workers.size(); i++) {
            said[2 * i] = workers.get(i).thread.getName();
            said[2 * i + 1] = workers.get(i).cpu;
        }
        Stacks.say(said);
        // Names are read while it lives.
        while (System.in.read() >= 0) { }
    }
}
