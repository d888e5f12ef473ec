/* Stacks of every shape that a walk without frame pointers meets. Each part burns CPU time in `shape_work` below
 * functions of known names, so that the whole stack is known.
 *
 * usage: shapes WHICH MILLISECONDS, where WHICH is one of
 *   signal       in a handler, below a function that raised the signal
 *   altstack     the same on an alternate signal stack
 *   interrupted  in a handler of a signal that hit a function that calls nothing
 *   coroutine    on a stack of its own (makecontext)
 *   vfork        in a child that shares its parent's memory
 *   thread       in a thread
 *   realigned    below a function that realigned its stack
 *   deep-N       below N calls of one function */
#define _GNU_SOURCE
#include <alloca.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>

#include "burn.h"

static uint64_t work_ns;

BURNER(shape_work)

/* Keeps a call from being the function's last instruction. */
#define AFTER_CALL() __asm__ volatile("")

static volatile sig_atomic_t handled;

NOINLINE void shape_handler(int signal)
{
    (void)signal;
    if (!handled) {
        handled = 1;
        shape_work(work_ns);
    }
    AFTER_CALL();
}

static void catch_signal(int signal, int flags)
{
    struct sigaction action = {.sa_handler = shape_handler, .sa_flags = flags};
    sigaction(signal, &action, NULL);
}

NOINLINE void shape_raiser(void)
{
    raise(SIGUSR1);
    AFTER_CALL();
}

/* Runs until the handler has run, and calls nothing. */
NOINLINE void shape_interrupted(void)
{
    while (!handled)
        __asm__ volatile("");
}

static void on_alternate_stack(void)
{
    static char memory[64 * 1024];
    stack_t stack = {.ss_sp = memory, .ss_size = sizeof memory};
    sigaltstack(&stack, NULL);
    catch_signal(SIGUSR1, SA_ONSTACK);
    shape_raiser();
}

static void by_timer(void)
{
    struct itimerval soon = {.it_value = {.tv_usec = 10000}};
    catch_signal(SIGVTALRM, 0);
    setitimer(ITIMER_VIRTUAL, &soon, NULL);
    shape_interrupted();
}

static ucontext_t main_context, own_context;

NOINLINE void shape_coroutine(void)
{
    shape_work(work_ns);
    AFTER_CALL();
}

NOINLINE void shape_switcher(void)
{
    static char memory[64 * 1024];
    getcontext(&own_context);
    own_context.uc_stack.ss_sp = memory;
    own_context.uc_stack.ss_size = sizeof memory;
    own_context.uc_link = &main_context;
    makecontext(&own_context, shape_coroutine, 0);
    swapcontext(&main_context, &own_context);
    AFTER_CALL();
}

NOINLINE void shape_child(void)
{
    shape_work(work_ns);
    AFTER_CALL();
}

NOINLINE int shape_vfork(void)
{
    pid_t child = vfork();
    if (child == 0) {
        shape_child();
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    return child;
}

NOINLINE void *shape_thread(void *unused)
{
    shape_work(work_ns);
    AFTER_CALL();
    return unused;
}

static void in_thread(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, shape_thread, NULL);
    pthread_join(thread, NULL);
}

/* A local variable that is aligned beyond the ABI's 16 bytes, and one of variable size: the frame is found by a pointer
 * that is kept on the stack. */
NOINLINE void shape_realigned(size_t size)
{
    char aligned[64] __attribute__((aligned(64)));
    char *variable = alloca(size);
    memset(variable, 0, size);
    __asm__ volatile("" ::"r"(aligned), "r"(variable) : "memory");
    shape_work(work_ns);
    __asm__ volatile("" ::"r"(aligned), "r"(variable) : "memory");
}

NOINLINE void shape_deep(int left)
{
    if (left > 1)
        shape_deep(left - 1);
    else
        shape_work(work_ns);
    AFTER_CALL();
}

int main(int argc, char **argv)
{
    work_ns = ms_argument(argc, argv, 2);
    const char *which = argv[1];
    int pid = (int)getpid();
    if (!strcmp(which, "signal"))
        catch_signal(SIGUSR1, 0), shape_raiser();
    else if (!strcmp(which, "altstack"))
        on_alternate_stack();
    else if (!strcmp(which, "interrupted"))
        by_timer();
    else if (!strcmp(which, "coroutine"))
        shape_switcher();
    else if (!strcmp(which, "vfork"))
        pid = shape_vfork();
    else if (!strcmp(which, "thread"))
        in_thread();
    else if (!strcmp(which, "realigned"))
        shape_realigned((size_t)argc * 100);
    else if (!strncmp(which, "deep-", 5))
        shape_deep(atoi(which + 5));
    else
        return fprintf(stderr, "%s: no such shape\n", which), 64;
    printf("{\"pid\":%d,\"cpu_ns\":%llu}\n", pid, (unsigned long long)work_ns);
    return 0;
}
