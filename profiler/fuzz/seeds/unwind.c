/* What the fuzz target of unwind information starts from: functions with a realigned stack, with a frame pointer, with
   neither. docs/testing.md has the commands that compile it. */

void fill(char *);

int realigned(int n) {
    char aligned[64] __attribute__((aligned(64)));
    fill(aligned);
    return aligned[n];
}

int framed(int n) {
    char any[n];
    fill(any);
    return any[n / 2] + realigned(n);
}

int leaf(int n) { return n * 3; }
