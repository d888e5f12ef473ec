/* What a JVM tells of itself, so often.
 *
 * usage: Events collect NUMBER      collects garbage so often; says {"around": ns} of these calls, by its own clock
 *        Events load NUMBER         loads a class so often, each time by another loader, and calls a method of it 20,000 times,
 *                                   so that it is compiled; says {"sum": a number that comes of it}
 * Before, says `ready`, waits for a line and works for 300 ms; behind, waits for the end of its input. */
package known;


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

    public static void main(String[] arguments) throws Exception {
        int number = Integer.parseInt(arguments[1]);
        byte[] code = Reuse.bytes("known.Events$Loaded");
        System.out.println("ready");
        System.in.read();
        for (long end = System.nanoTime() + 300_000_000L; System.nanoTime() < end; ) { }
        boolean collects = arguments[0].equals("collect");
        long result = collects ? collect(number) : load(number, code);
        System.out.println("{\"" + (collects ? "around" : "sum") + "\":" + result + "}");
        while (System.in.read() != -1) { }
    }
}
