/* Three named threads, each in a function of its own, for 1, 2 and 3 parts of the same CPU time.
 *
 * usage: threads MILLISECONDS [wait] */
#define _GNU_SOURCE
#include <pthread.h>

#include "burn.h"

BURNER(thread_alpha_work)
BURNER(thread_beta_work)
BURNER(thread_delta_work)

static uint64_t part_ns;

#define THREAD(name, parts)                           \
    static void *name(void *unused)                   \
    {                                                 \
        pthread_setname_np(pthread_self(), #name);    \
        thread_##name##_work((parts) * part_ns);      \
        return unused;                                \
    }

THREAD(alpha, 1)
THREAD(beta, 2)
THREAD(delta, 3)

int main(int argc, char **argv)
{
    void *(*const body[3])(void *) = {alpha, beta, delta};
    pthread_t thread[3];

    part_ns = ms_argument(argc, argv, 1);
    if (argc > 2)
        say("ready"), wait_for_go();
    for (int i = 0; i < 3; i++)
        if (pthread_create(&thread[i], NULL, body[i], NULL))
            return 71;
    for (int i = 0; i < 3; i++)
        pthread_join(thread[i], NULL);
    say_used();
    return 0;
}
