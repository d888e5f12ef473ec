/* What a JVM tells of itself, so often.
 *
 * usage: Events collect NUMBER      collects garbage so often; says {"around": ns} of these calls, by its own clock
 *        Events load NUMBER         loads a class so often, each time by another loader, and calls a method of it 20,000 times,
 *                                   so that it is compiled; says {"sum": a number that comes of it}
 *        Events contend NUMBER      a thread `known-enters` enters a monitor so often while another has it for 2 ms from then on; says
 *                                   {"around": ns} of what it enters, {"held": ns} from where it waits until it is left
 * Before, says `ready`, waits for a line and works for 300 ms; behind, waits for the end of its input. */
package known;

import java.util.concurrent.Semaphore;

public class Events {
    /* Loads `Loaded` itself, all others as usual. */
    static class Loader extends ClassLoader {
        final byte[] code;

        Loader(byte[] code) {
            super(Events.class.getClassLoader());
            this.code = code;
        }

        @Override protected Class<?> loadClass(String name, boolean resolve) throws ClassNotFoundException {
            return name.equals(Loaded.class.getName()) ? defineClass(name, code, 0, code.length) : super.loadClass(name, resolve);
        }
    }

    public static class Loaded implements java.util.function.LongUnaryOperator {
        @Override public long applyAsLong(long x) {
            return x * 6364136223846793005L + 1442695040888963407L;
        }
    }

    static long collect(int number) {
        long begin = System.nanoTime();
        for (int i = 0; i < number; i++) System.gc();
        return System.nanoTime() - begin;
    }

    static long load(int number, byte[] code) throws Exception {
        long sum = 0;
        for (int i = 0; i < number; i++) {
            Class<?> loaded = new Loader(code).loadClass(Loaded.class.getName());
            java.util.function.LongUnaryOperator step =
                (java.util.function.LongUnaryOperator) loaded.getDeclaredConstructor().newInstance();
            for (int call = 0; call < 20_000; call++) sum = step.applyAsLong(sum);
        }
        return sum;
    }

    static final Object monitor = new Object();
    static long around;

    static void enters(int number, Semaphore taken, Semaphore left) {
        for (int i = 0; i < number; i++) {
            taken.acquireUninterruptibly();
            long begin = System.nanoTime();
            synchronized (monitor) {
                around += System.nanoTime() - begin;
            }
            left.release();
        }
    }

    static long contend(int number) throws Exception {
        Semaphore taken = new Semaphore(0), left = new Semaphore(0);
        Thread other = new Thread(() -> enters(number, taken, left), "known-enters");
        other.start();
        long held = 0;
        for (int i = 0; i < number; i++) {
            long begin;
            synchronized (monitor) {
                taken.release();
                while (other.getState() != Thread.State.BLOCKED) Thread.yield();
                begin = System.nanoTime();
                Thread.sleep(2);
                held += System.nanoTime() - begin;
            }
            left.acquire();
        }
        other.join();
        return held;
    }

    public static void main(String[] arguments) throws Exception {
        int number = Integer.parseInt(arguments[1]);
        byte[] code = Reuse.bytes("known.Events$Loaded");
        if (arguments[0].equals("contend")) {
            // Nobody waits for classes later.
            contend(3);
            around = 0;
        }
        System.out.println("ready");
        System.in.read();
        for (long end = System.nanoTime() + 300_000_000L; System.nanoTime() < end; ) { }
        switch (arguments[0]) {
            case "collect":
                System.out.println("{\"around\":" + collect(number) + "}");
                break;
            case "load":
                System.out.println("{\"sum\":" + load(number, code) + "}");
                break;
            default:
                System.out.println("{\"held\":" + contend(number) + ",\"around\":" + around + "}");
        }
        while (System.in.read() != -1) { }
    }
}
