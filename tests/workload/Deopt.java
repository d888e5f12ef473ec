/* A method that is deoptimized while it waits: it was compiled for the one class of its kind that there was, and another
 * one is loaded. `inner` is inlined into `outer`, `doze` is not.
 *
 * usage: Deopt MILLISECONDS    says `ready`, waits for a line; a thread `known-dozes` is in `outer` for as long, in waits of a
 *                       millisecond, the class is loaded after a quarter of the time; says how many waits there were before
 *                       and afterwards, waits for the end of its input */
package known;

public class Deopt {
    static volatile long waits;
    static volatile long before;
    static volatile long sink;

    static abstract class Shape {
        abstract long corners();
    }

    static class Square extends Shape {
        long corners() {
            return 4;
        }
    }

    static class Triangle extends Shape {
        long corners() {
            return 3;
        }
    }

    static long doze(long end) {
        while (System.nanoTime() < end) {
            try {
                Thread.sleep(1);
            } catch (InterruptedException e) {
                throw new RuntimeException(e);
            }
            waits++;
        }
        return waits;
    }

    static long inner(long end) {
        return doze(end) + 1; // inner
    }

    static long outer(Shape shape, long end) {
        long x = inner(end) * 3; // outer
        return x + shape.corners();
    }

    public static void main(String[] arguments) throws Exception {
        Shape square = new Square();
        // Often enough for the last compiler.
        for (int i = 0; i < 50_000; i++) sink += outer(square, 0);
        System.out.println("ready");
        System.in.read();
        long start = System.nanoTime();
        // Half a second in which the profiler gets to know the process.
        while (System.nanoTime() < start + 500_000_000) sink += outer(square, 0);
        long time = Long.parseLong(arguments[0]);
        long end = System.nanoTime() + time * 1_000_000;
        Thread dozes = Stacks.start("known-dozes", () -> sink += outer(square, end));
        Thread.sleep(time / 4);
        sink += new Triangle().corners();
        before = waits;
        dozes.join();
        Stacks.say("before", before, "after", waits - before);
        // Names are read while it lives.
        while (System.in.read() >= 0) { }
    }
}
