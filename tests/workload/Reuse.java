/* Code whose addresses are used again and again. Two threads have classes of their own, which are loaded, compiled, used and
 * unloaded in rounds. The methods of both look the same to the compilers, so that those of one come to be where those of
 * the other were. The first round takes a second or more, the others some milliseconds.
 *
 * usage: Reuse MILLISECONDS    says `ready`, waits for a line, does that for as long: a thread `known-first` is in methods of
 *                       `First` only, `known-second` in those of `Second`; says how many rounds each had, waits for
 *                       the end of its input */
package known;

public class Reuse {
    static volatile long sink;

    /* A round in one of the classes. */
    public interface Round {
        long round(long x, long turns);
    }

    static final class Own extends ClassLoader {
        Own() {
            super(Reuse.class.getClassLoader());
        }

        Round load(String name, byte[] bytes) throws Exception {
            return (Round) defineClass(name, bytes, 0, bytes.length).getDeclaredConstructor().newInstance();
        }
    }

    static byte[] bytes(String name) throws Exception {
        java.io.ByteArrayOutputStream bytes = new java.io.ByteArrayOutputStream();
        byte[] part = new byte[4096];
        try (java.io.InputStream in =
                 Reuse.class.getClassLoader().getResourceAsStream(name.replace('.', '/') + ".class")) {
            for (int read; (read = in.read(part)) >= 0; ) bytes.write(part, 0, read);
        }
        return bytes.toByteArray();
    }

    /* In a class that can be unloaded when this has returned. */
    static void once(String name, byte[] bytes, long turns) throws Exception {
        sink += new Own().load(name, bytes).round(sink, turns);
    }

    static long busy(String name, long end) throws Exception {
        byte[] bytes = bytes(name);
        long rounds = 0;
        while (System.nanoTime() < end) {
            once(name, bytes, rounds == 0 ? 200_000_000 : 200_000);
            System.gc();
            rounds++;
        }
        return rounds;
    }

    public static void main(String[] arguments) throws Exception {
        for (String name : new String[] {"known.Reuse$First", "known.Reuse$Second"}) once(name, bytes(name), 1);
        System.out.println("ready");
        System.in.read();
        long start = System.nanoTime();
        // Half a second in which the profiler gets to know the process.
        while (System.nanoTime() < start + 500_000_000) sink++;
        long end = System.nanoTime() + Long.parseLong(arguments[0]) * 1_000_000;
        long[] rounds = new long[2];
        Thread first = Stacks.start("known-first", () -> rounds[0] = busy("known.Reuse$First", end));
        Thread second = Stacks.start("known-second", () -> rounds[1] = busy("known.Reuse$Second", end));
        first.join();
        second.join();
        Stacks.say("first", rounds[0], "second", rounds[1]);
        // Names are read while it lives.
        while (System.in.read() >= 0) { }
    }

    /* Two classes that differ in their names only. */
    public static class First implements Round {
        static long m0(long x, long turns) {
                while (turns-- > 0) x = x * 6364136223846793005L + 1;
            return x;
        }

        static long m1(long x, long turns) {
                while (turns-- > 0) x = x * 6364136223846793005L + 3;
            return x;
        }

        static long m2(long x, long turns) {
                while (turns-- > 0) x = x * 6364136223846793005L + 5;
            return x;
        }

        static long m3(long x, long turns) {
                while (turns-- > 0) x = x * 6364136223846793005L + 7;
            return x;
        }

        public long round(long x, long turns) {
            return m0(x, turns) + m1(x, turns) + m2(x, turns) + m3(x, turns);
        }
    }

    public static class Second implements Round {
        static long m0(long x, long turns) {
                while (turns-- > 0) x = x * 6364136223846793005L + 1;
            return x;
        }

        static long m1(long x, long turns) {
                while (turns-- > 0) x = x * 6364136223846793005L + 3;
            return x;
        }

        static long m2(long x, long turns) {
                while (turns-- > 0) x = x * 6364136223846793005L + 5;
            return x;
        }

        static long m3(long x, long turns) {
                while (turns-- > 0) x = x * 6364136223846793005L + 7;
            return x;
        }

        public long round(long x, long turns) {
            return m0(x, turns) + m1(x, turns) + m2(x, turns) + m3(x, turns);
        }
    }
}
