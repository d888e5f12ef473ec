/* What the network costs over the loopback interface, between two processes, in batches. Prints the time of one operation
 * in the batch that is slower than a tenth of all: what else the machine does at times is not in it.
 *
 * usage: net_storm requests|datagrams|connections|bulk BATCHES
 *   requests: 100 bytes there and back by TCP, 2,000 a batch. datagrams: the same by UDP. connections: a connection made, taken
 *   and closed, 500 a batch. bulk: 64 KiB sent and received, 500 a batch. */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "burn.h"

static char buffer[1 << 16];

static void check(int ok)
{
    if (!ok) {
        perror("net_storm");
        abort();
    }
}

static int ascending(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

static int bound(int type, struct sockaddr_in *address)
{
    socklen_t size = sizeof(*address);
    int fd = socket(AF_INET, type, 0);
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    check(fd >= 0 && bind(fd, (struct sockaddr *)address, size) == 0);
    check(getsockname(fd, (struct sockaddr *)address, &size) == 0);
    return fd;
}

static int connected(const struct sockaddr_in *address)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    check(fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0);
    check(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) == 0);
    return fd;
}

/* The other side: sends back what comes, or takes it if it is much. */
static void serve(int fd, int answers)
{
    for (;;) {
        long got = recv(fd, buffer, sizeof(buffer), 0);
        if (got <= 0)
            return;
        if (answers)
            check(send(fd, buffer, (size_t)got, 0) == got);
    }
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    long batches = argc > 2 ? strtol(argv[2], NULL, 10) : 0;
    int requests = strcmp(mode, "requests") == 0, datagrams = strcmp(mode, "datagrams") == 0;
    int connections = strcmp(mode, "connections") == 0, bulk = strcmp(mode, "bulk") == 0;
    uint64_t *times = batches > 0 ? calloc((size_t)batches, sizeof *times) : NULL;
    if (times == NULL || requests + datagrams + connections + bulk != 1) {
        fprintf(stderr, "usage: see the head of the source\n");
        return 64;
    }
    struct sockaddr_in address, own;
    int listener = bound(datagrams ? SOCK_DGRAM : SOCK_STREAM, &address), fd = -1;
    if (datagrams) {
        fd = bound(SOCK_DGRAM, &own);
        check(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
        check(connect(listener, (struct sockaddr *)&own, sizeof(own)) == 0);
    } else {
        check(listen(listener, 128) == 0);
    }
    pid_t child = fork();
    check(child >= 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, 9);
        if (datagrams)
            serve(listener, 1);
        for (;;) {
            int taken = accept(listener, NULL, NULL), one = 1;
            check(taken >= 0);
            if (!connections) {
                check(setsockopt(taken, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) == 0);
                serve(taken, requests);
            }
            close(taken);
        }
    }
    if (requests || bulk)
        fd = connected(&address);
    int operations = connections || bulk ? 500 : 2000;
    for (long i = 0; i < batches; i++) {
        uint64_t begin = clock_ns(CLOCK_MONOTONIC);
        for (int j = 0; j < operations; j++) {
            if (connections) {
                int one = connected(&address);
                /* The other side closes it first: ports of this one are not used up. */
                check(recv(one, buffer, 1, 0) == 0);
                close(one);
            } else if (bulk) {
                check(send(fd, buffer, sizeof(buffer), MSG_WAITALL) == sizeof(buffer));
            } else {
                check(send(fd, buffer, 100, 0) == 100 && recv(fd, buffer, 100, MSG_WAITALL) == 100);
            }
        }
        times[i] = clock_ns(CLOCK_MONOTONIC) - begin;
    }
    qsort(times, (size_t)batches, sizeof *times, ascending);
    printf("{\"operation_ns\":%.1f,\"operations\":%ld}\n", (double)times[batches / 10] / operations,
           batches * operations);
    return 0;
}
