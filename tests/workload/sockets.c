/* Sockets whose bytes, calls, connections and errors are known.
 *
 * usage: sockets traffic MIB [MS]
 *   A process and its child send each other: MIB MiB by TCP over IPv4; requests and answers over IPv6; a file by sendfile, which
 *   the child takes out by splice; datagrams by sendmmsg, of no bytes, over IPv4 and IPv6; streams and datagrams of unix
 *   sockets; with MSG_PEEK. Some calls fail. They begin after MS milliseconds, in which a profiler can make its tables. Says {"pid", "child", "ends": [[pid, protocol, local port, remote port,
 *   bytes sent, bytes received, calls that send, calls that receive, failed sends, failed receives], ...]}; calls of -1 are
 *   not known. Ports of unix sockets are 0.
 * usage: sockets short COUNT
 *   A child takes COUNT connections; of every second one it is sent 100 bytes and answers with 200. 50 more are refused.
 *   Says {"pid", "child", "port"}.
 * usage: sockets resets COUNT
 *   The same with 10 bytes sent on each, and the connection reset by the side that asked for it.
 * usage: sockets many COUNT
 *   COUNT connections to a child at once, 10 bytes there and one back each. Says {"pid", "child"}.
 * usage: sockets more COUNT
 *   The same, 200,000 at most, between pairs of processes of 12,500 each, all at once. Says {"pid", "pids"}: those that asked.
 * usage: sockets existing
 *   A connection to a child, used. Says {"pid", "child", "port"}, and waits for a line; then 1,000,000 bytes are sent, and
 *   1,000 come back. Says `done`; ends with its input.
 * usage: sockets workers COUNT
 *   A child that listens, of which two children take COUNT connections, by turns as it happens, and get 10 bytes of each
 *   second one; says {"pid", "child", "workers": [[pid, connections, bytes], ...]}.
 * usage: sockets drops COUNT
 *   COUNT datagrams of 1,000 bytes to a socket that has little room and is read afterwards. Says {"pid", "got"}: how many were
 *   there.
 * usage: sockets unread COUNT
 *   COUNT messages of 100 bytes that nobody reads, to a unix socket, which is closed then. Says {"pid"}.
 * usage: sockets uring COUNT
 *   COUNT requests of 100 bytes to a child over TCP, each answered by 50; this side sends and receives by io_uring alone. Says
 *   {"pid", "child"}, or {"error"}: the error number, if there is no io_uring.
 * usage: sockets rounds HOST PORT COUNT
 *   COUNT requests of 64 bytes to a server, each answered by as many. Says {"pid", "connect_ns", "srtt_us", "retransmits"}:
 *   the time in connect, and what the kernel says of the connection at the end.
 * usage: sockets late HOST PORT
 *   A connection to a host that does not answer, given up after two tries. Says {"pid"}.
 * usage: sockets serve HOST PORT
 *   That server, for one connection. Says `ready`. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "burn.h"

static void check(int ok)
{
    if (!ok) {
        perror("sockets");
        abort();
    }
}

/* What one end did. Shared with the child. */
struct end {
    int pid, local, remote;
    char protocol[8];
    long tx, rx, tx_calls, rx_calls, tx_errors, rx_errors;
};

static struct shared {
    int n;
    struct end ends[64];
    int port, steps;
    long workers[2][3];
} *shared;

static char buffer[1 << 17];

static int port_of(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET)
        return ntohs(((const struct sockaddr_in *)address)->sin_port);
    if (address->ss_family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)address)->sin6_port);
    return 0;
}

/* The account of this process's end of a socket. */
static struct end *end_of(int fd, const char *protocol)
{
    struct end *end = &shared->ends[__sync_fetch_and_add(&shared->n, 1)];
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof(address);
    end->pid = getpid();
    strcpy(end->protocol, protocol);
    check(getsockname(fd, (struct sockaddr *)&address, &size) == 0);
    end->local = port_of(&address);
    memset(&address, 0, sizeof(address));
    size = sizeof(address);
    if (getpeername(fd, (struct sockaddr *)&address, &size) == 0)
        end->remote = port_of(&address);
    return end;
}

static long put(int fd, struct end *end, long bytes)
{
    long sent = send(fd, buffer, (size_t)bytes, MSG_NOSIGNAL);
    end->tx_calls++;
    if (sent >= 0)
        end->tx += sent;
    else
        end->tx_errors++;
    return sent;
}

static void put_all(int fd, struct end *end, long bytes)
{
    while (bytes > 0) {
        long sent = put(fd, end, bytes < (1 << 16) ? bytes : 1 << 16);
        check(sent > 0);
        bytes -= sent;
    }
}

static long get(int fd, struct end *end, long room, int flags)
{
    long got = recv(fd, buffer, (size_t)room, flags);
    end->rx_calls++;
    if (got < 0 && errno != EAGAIN)
        end->rx_errors++;
    if (got > 0 && !(flags & MSG_PEEK))
        end->rx += got;
    return got;
}

static void get_all(int fd, struct end *end, long bytes)
{
    while (bytes > 0) {
        long got = get(fd, end, bytes < (long)sizeof(buffer) ? bytes : (long)sizeof(buffer), 0);
        check(got > 0);
        bytes -= got;
    }
}

static struct sockaddr_storage address_of(int family, int port)
{
    struct sockaddr_storage address = {0};
    address.ss_family = (sa_family_t)family;
    if (family == AF_INET) {
        struct sockaddr_in *v4 = (struct sockaddr_in *)&address;
        v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        v4->sin_port = htons((uint16_t)port);
    } else {
        struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address;
        v6->sin6_addr = in6addr_loopback;
        v6->sin6_port = htons((uint16_t)port);
    }
    return address;
}

static socklen_t size_of(const struct sockaddr_storage *address)
{
    return address->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

/* A socket bound to a free port of the loopback interface. */
static int bound(int family, int type, int *port)
{
    int fd = socket(family, type, 0);
    struct sockaddr_storage address = address_of(family, 0);
    socklen_t size = size_of(&address);
    check(fd >= 0 && bind(fd, (struct sockaddr *)&address, size) == 0);
    check(getsockname(fd, (struct sockaddr *)&address, &size) == 0);
    *port = port_of(&address);
    return fd;
}

static NOINLINE int connected(int family, int type, int port)
{
    int fd = socket(family, type, 0);
    struct sockaddr_storage address = address_of(family, port);
    check(fd >= 0);
    if (connect(fd, (struct sockaddr *)&address, size_of(&address)) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static void wait_for(pid_t child)
{
    int status;
    check(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* traffic */

enum { REQUESTS = 500, FILE_BYTES = 1 << 20, BATCHES = 10, BATCH = 16, DATAGRAM = 200 };

static NOINLINE void bulk(int fd, struct end *end, int is_client, long bytes)
{
    if (is_client) {
        put_all(fd, end, bytes);
        get_all(fd, end, 1);
    } else {
        /* Looking at what comes is no receiving. */
        check(get(fd, end, 100, MSG_PEEK) > 0);
        get_all(fd, end, bytes);
        put_all(fd, end, 1);
    }
}

static NOINLINE void requests(int fd, struct end *end, int is_client)
{
    for (int i = 0; i < REQUESTS; i++) {
        if (is_client)
            put_all(fd, end, 100);
        get_all(fd, end, is_client ? 300 : 100);
        if (!is_client)
            put_all(fd, end, 300);
    }
    if (is_client) {
        /* What is sent when no more may be fails; what is not there cannot be received, which is no error. */
        check(get(fd, end, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
        check(shutdown(fd, SHUT_WR) == 0);
        for (int i = 0; i < 3; i++)
            check(put(fd, end, 10) < 0 && errno == EPIPE);
    }
    /* The end of the other side's. */
    if (!is_client)
        check(get(fd, end, 10, 0) == 0);
}

static NOINLINE void file(int fd, struct end *end, int is_client)
{
    if (is_client) {
        int file = memfd_create("file", 0);
        check(file >= 0 && ftruncate(file, FILE_BYTES) == 0);
        for (long sent = 0; sent < FILE_BYTES;) {
            long n = sendfile(fd, file, NULL, FILE_BYTES);
            check(n > 0);
            sent += n;
        }
        end->tx = FILE_BYTES;
        end->tx_calls = -1;
        close(file);
        get_all(fd, end, 1);
    } else {
        int ends[2], null = open("/dev/null", O_WRONLY);
        check(pipe(ends) == 0 && null >= 0);
        for (long got = 0; got < FILE_BYTES;) {
            long n = splice(fd, NULL, ends[1], NULL, 1 << 16, 0);
            check(n > 0);
            got += n;
            while (n > 0) {
                long m = splice(ends[0], NULL, null, NULL, (size_t)n, 0);
                check(m > 0);
                n -= m;
            }
        }
        end->rx = FILE_BYTES;
        put_all(fd, end, 1);
    }
}

static NOINLINE void batches(int fd, struct end *end, int is_client)
{
    static struct mmsghdr messages[BATCH];
    static struct iovec parts[BATCH];
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){buffer + i * DATAGRAM, DATAGRAM};
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    for (int round = 0; round < BATCHES; round++) {
        if (is_client) {
            check(sendmmsg(fd, messages, BATCH, 0) == BATCH);
            end->tx += BATCH * DATAGRAM;
            end->tx_calls += BATCH;
            get_all(fd, end, 4);
        } else {
            for (int i = 0; i < BATCH; i++)
                check(get(fd, end, 1000, 0) == DATAGRAM);
            put_all(fd, end, 4);
        }
    }
}

static NOINLINE void empty(int fd, struct end *end, int is_client)
{
    for (int i = 0; i < 20; i++) {
        if (is_client)
            check(put(fd, end, i % 2 ? 0 : 50) >= 0);
        else
            check(get(fd, end, 100, 0) == (i % 2 ? 0 : 50));
    }
    if (is_client)
        get_all(fd, end, 2);
    else
        put_all(fd, end, 2);
}

static NOINLINE void unix_end(int fd, struct end *end, int is_client)
{
    for (int i = 0; i < 25; i++) {
        if (is_client)
            put_all(fd, end, 70);
        get_all(fd, end, is_client ? 30 : 70);
        if (!is_client)
            put_all(fd, end, 30);
    }
}

static void child_of_traffic(int tcp4, int tcp6, int udp4, int udp6, int stream, int datagram, long bytes)
{
    int fd = accept(tcp4, NULL, NULL);
    check(fd >= 0);
    bulk(fd, end_of(fd, "tcp"), 0, bytes);
    close(fd);
    fd = accept(tcp6, NULL, NULL);
    check(fd >= 0);
    requests(fd, end_of(fd, "tcp"), 0);
    close(fd);
    fd = accept(tcp4, NULL, NULL);
    check(fd >= 0);
    file(fd, end_of(fd, "tcp"), 0);
    close(fd);
    batches(udp4, end_of(udp4, "udp"), 0);
    empty(udp6, end_of(udp6, "udp"), 0);
    unix_end(stream, end_of(stream, "unix"), 0);
    unix_end(datagram, end_of(datagram, "unix"), 0);
    _exit(0);
}

static void say_ends(pid_t child)
{
    printf("{\"pid\":%d,\"child\":%d,\"ends\":[", getpid(), child);
    for (int i = 0; i < shared->n; i++) {
        struct end *end = &shared->ends[i];
        printf("%s[%d,\"%s\",%d,%d,%ld,%ld,%ld,%ld,%ld,%ld]", i ? "," : "", end->pid, end->protocol, end->local,
               end->remote, end->tx, end->rx, end->tx_calls, end->rx_calls, end->tx_errors, end->rx_errors);
    }
    printf("]}\n");
    fflush(stdout);
}

static int traffic(long bytes)
{
    int port4, port6, uport4, uport6, peer4, peer6, streams[2], datagrams[2];
    int tcp4 = bound(AF_INET, SOCK_STREAM, &port4), tcp6 = bound(AF_INET6, SOCK_STREAM, &port6);
    int udp4 = bound(AF_INET, SOCK_DGRAM, &uport4), udp6 = bound(AF_INET6, SOCK_DGRAM, &uport6);
    int mine4 = bound(AF_INET, SOCK_DGRAM, &peer4), mine6 = bound(AF_INET6, SOCK_DGRAM, &peer6);
    struct sockaddr_storage to4 = address_of(AF_INET, uport4), to6 = address_of(AF_INET6, uport6);
    struct sockaddr_storage from4 = address_of(AF_INET, peer4), from6 = address_of(AF_INET6, peer6);
    check(listen(tcp4, 8) == 0 && listen(tcp6, 8) == 0);
    check(connect(mine4, (struct sockaddr *)&to4, size_of(&to4)) == 0);
    check(connect(mine6, (struct sockaddr *)&to6, size_of(&to6)) == 0);
    check(connect(udp4, (struct sockaddr *)&from4, size_of(&from4)) == 0);
    check(connect(udp6, (struct sockaddr *)&from6, size_of(&from6)) == 0);
    check(socketpair(AF_UNIX, SOCK_STREAM, 0, streams) == 0 && socketpair(AF_UNIX, SOCK_DGRAM, 0, datagrams) == 0);
    pid_t child = fork();
    check(child >= 0);
    if (child == 0)
        child_of_traffic(tcp4, tcp6, udp4, udp6, streams[1], datagrams[1], bytes);

    int fd = connected(AF_INET, SOCK_STREAM, port4);
    check(fd >= 0);
    bulk(fd, end_of(fd, "tcp"), 1, bytes);
    close(fd);
    fd = connected(AF_INET6, SOCK_STREAM, port6);
    check(fd >= 0);
    requests(fd, end_of(fd, "tcp"), 1);
    close(fd);
    fd = connected(AF_INET, SOCK_STREAM, port4);
    check(fd >= 0);
    file(fd, end_of(fd, "tcp"), 1);
    close(fd);
    batches(mine4, end_of(mine4, "udp"), 1);
    empty(mine6, end_of(mine6, "udp"), 1);
    unix_end(streams[0], end_of(streams[0], "unix"), 1);
    unix_end(datagrams[0], end_of(datagrams[0], "unix"), 1);
    wait_for(child);
    /* Nobody listens there any more: the first is sent, and its answer fails the second. */
    close(udp4);
    struct end *end = end_of(mine4, "udp");
    check(put(mine4, end, 5) == 5);
    check(put(mine4, end, 5) < 0 && errno == ECONNREFUSED);
    say_ends(child);
    return 0;
}

/* short, resets */

static pid_t server(int listener, void (*serve)(int fd, int number), long count)
{
    pid_t child = fork();
    check(child >= 0);
    if (child != 0)
        return child;
    for (int i = 0; i < count; i++) {
        int fd = accept(listener, NULL, NULL);
        check(fd >= 0);
        serve(fd, i);
        close(fd);
    }
    _exit(0);
}

static void answer(int fd, int number)
{
    (void)number;
    /* Of connections that nothing is sent on, this is the end. */
    if (recv(fd, buffer, 100, 0) == 100)
        check(send(fd, buffer, 200, 0) == 200 && recv(fd, buffer, 1, 0) == 0);
}

static void be_reset(int fd, int number)
{
    (void)number;
    check(recv(fd, buffer, 10, MSG_WAITALL) == 10);
    check(send(fd, buffer, 1, 0) == 1);
    check(recv(fd, buffer, 10, 0) < 0 && errno == ECONNRESET);
}

/* Connections of a port that are not over: a last word that was lost is said again 200 ms later, by a side that has closed. */
static int go_on(int port)
{
    unsigned local, remote, state;
    int count = 0;
    FILE *all = fopen("/proc/net/tcp", "r");
    check(all != NULL);
    while (fgets(buffer, 256, all))
        if (sscanf(buffer, "%*s %*8x:%x %*8x:%x %x", &local, &remote, &state) == 3)
            count += ((int)local == port || (int)remote == port) && state != TCP_TIME_WAIT && state != TCP_LISTEN;
    fclose(all);
    return count;
}

static NOINLINE int connections(long count, int resets)
{
    int port, free_port;
    int listener = bound(AF_INET, SOCK_STREAM, &port);
    check(listen(listener, 128) == 0);
    pid_t child = server(listener, resets ? be_reset : answer, count);
    close(listener);
    for (int i = 0; i < count; i++) {
        int fd = connected(AF_INET, SOCK_STREAM, port);
        check(fd >= 0);
        if (resets) {
            struct linger at_once = {1, 0};
            check(send(fd, buffer, 10, 0) == 10 && recv(fd, buffer, 1, 0) == 1);
            check(setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)) == 0);
        } else if (i % 2) {
            check(send(fd, buffer, 100, 0) == 100 && recv(fd, buffer, 200, MSG_WAITALL) == 200);
        }
        close(fd);
    }
    if (!resets) {
        close(bound(AF_INET, SOCK_STREAM, &free_port));
        for (int i = 0; i < 50; i++)
            check(connected(AF_INET, SOCK_STREAM, free_port) < 0 && errno == ECONNREFUSED);
    }
    wait_for(child);
    for (int i = 0; i < 500 && go_on(port); i++)
        usleep(10000);
    printf("{\"pid\":%d,\"child\":%d,\"port\":%d}\n", getpid(), child, port);
    return 0;
}

/* many */

/* With others: where to say that all connections are there, and what ends when those of all others are too. */
static int say_when = -1, hold_until = -1;

static pid_t many_between(long count)
{
    int port;
    struct rlimit files = {(rlim_t)count + 100, (rlim_t)count + 100};
    check(setrlimit(RLIMIT_NOFILE, &files) == 0);
    int listener = bound(AF_INET, SOCK_STREAM, &port);
    check(listen(listener, 4096) == 0);
    int *ends = calloc((size_t)count, sizeof(int));
    pid_t child = fork();
    check(child >= 0 && ends);
    for (int i = 0; i < count; i++) {
        if (child == 0) {
            ends[i] = accept(listener, NULL, NULL);
            check(ends[i] >= 0 && recv(ends[i], buffer, 10, MSG_WAITALL) == 10 && send(ends[i], buffer, 1, 0) == 1);
        } else {
            ends[i] = connected(AF_INET, SOCK_STREAM, port);
            check(ends[i] >= 0 && send(ends[i], buffer, 10, 0) == 10 && recv(ends[i], buffer, 1, 0) == 1);
        }
    }
    if (child == 0) {
        /* Until the other side ends. */
        check(recv(ends[0], buffer, 1, 0) == 0);
        _exit(0);
    }
    if (say_when >= 0) {
        check(write(say_when, "", 1) == 1);
        check(read(hold_until, buffer, 1) == 0);
    }
    close(ends[0]);
    return child;
}

static int many(long count)
{
    pid_t child = many_between(count);
    wait_for(child);
    printf("{\"pid\":%d,\"child\":%d}\n", getpid(), child);
    return 0;
}

/* more: pairs of processes, each with as many as one may have files */

static int more(long count)
{
    enum { EACH = 12500, MOST = 16 };
    pid_t pairs[MOST];
    int go[2], are_there[2], pairs_count = 0;
    char done;
    check(count <= EACH * MOST && pipe(go) == 0 && pipe(are_there) == 0);
    for (long left = count; left > 0; left -= EACH) {
        pid_t pair = fork();
        check(pair >= 0);
        if (pair == 0) {
            close(go[1]);
            hold_until = go[0];
            say_when = are_there[1];
            wait_for(many_between(left < EACH ? left : EACH));
            _exit(0);
        }
        pairs[pairs_count++] = pair;
    }
    for (int i = 0; i < pairs_count; i++)
        check(read(are_there[0], &done, 1) == 1);
    close(go[1]);
    for (int i = 0; i < pairs_count; i++)
        wait_for(pairs[i]);
    printf("{\"pid\":%d,\"pids\":[", getpid());
    for (int i = 0; i < pairs_count; i++)
        printf("%s%d", i ? "," : "", pairs[i]);
    printf("]}\n");
    return 0;
}

/* existing */

static int existing(void)
{
    int port;
    int listener = bound(AF_INET, SOCK_STREAM, &port);
    check(listen(listener, 8) == 0);
    pid_t child = fork();
    check(child >= 0);
    struct end end = {0};
    if (child == 0) {
        int fd = accept(listener, NULL, NULL);
        check(fd >= 0);
        close(listener);
        get_all(fd, &end, 500 + 1000000);
        put_all(fd, &end, 1000);
        check(recv(fd, buffer, 1, 0) == 0);
        _exit(0);
    }
    close(listener);
    int fd = connected(AF_INET, SOCK_STREAM, port);
    check(fd >= 0);
    put_all(fd, &end, 500);
    printf("{\"pid\":%d,\"child\":%d,\"port\":%d}\nready\n", getpid(), child, port);
    fflush(stdout);
    check(fgets(buffer, sizeof(buffer), stdin) != NULL);
    put_all(fd, &end, 1000000);
    get_all(fd, &end, 1000);
    printf("done\n");
    fflush(stdout);
    while (fgets(buffer, sizeof(buffer), stdin) != NULL)
        ;
    close(fd);
    wait_for(child);
    return 0;
}

/* workers */

static int workers(long count)
{
    int port, go[2];
    check(pipe(go) == 0);
    pid_t child = fork();
    check(child >= 0);
    if (child == 0) {
        pid_t each[2];
        int listener = bound(AF_INET, SOCK_STREAM, &port);
        check(listen(listener, 128) == 0);
        shared->port = port;
        for (int worker = 0; worker < 2; worker++) {
            each[worker] = fork();
            check(each[worker] >= 0);
            if (each[worker] != 0)
                continue;
            long *mine = shared->workers[worker];
            mine[0] = getpid();
            while (__sync_fetch_and_add(&shared->steps, 1) < count) {
                int fd = accept(listener, NULL, NULL);
                check(fd >= 0);
                long got = recv(fd, buffer, 100, 0);
                check(got >= 0);
                mine[1]++;
                mine[2] += got;
                close(fd);
            }
            _exit(0);
        }
        check(write(go[1], "x", 1) == 1);
        wait_for(each[0]);
        wait_for(each[1]);
        _exit(0);
    }
    check(read(go[0], buffer, 1) == 1);
    for (int i = 0; i < count; i++) {
        int fd = connected(AF_INET, SOCK_STREAM, shared->port);
        check(fd >= 0);
        if (i % 2)
            check(send(fd, buffer, 10, 0) == 10);
        close(fd);
    }
    wait_for(child);
    printf("{\"pid\":%d,\"child\":%d,\"workers\":[[%ld,%ld,%ld],[%ld,%ld,%ld]]}\n", getpid(), child,
           shared->workers[0][0], shared->workers[0][1], shared->workers[0][2], shared->workers[1][0],
           shared->workers[1][1], shared->workers[1][2]);
    return 0;
}

/* drops */

static int drops(long count)
{
    int port, room = 1 << 16;
    int to = bound(AF_INET, SOCK_DGRAM, &port), from = connected(AF_INET, SOCK_DGRAM, port);
    long got = 0;
    check(from >= 0 && setsockopt(to, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room)) == 0);
    for (int i = 0; i < count; i++)
        check(send(from, buffer, 1000, 0) == 1000);
    while (recv(to, buffer, 1000, MSG_DONTWAIT) == 1000)
        got++;
    check(errno == EAGAIN);
    printf("{\"pid\":%d,\"got\":%ld}\n", getpid(), got);
    return 0;
}

/* unread */

static NOINLINE void close_unread(int fd)
{
    check(close(fd) == 0);
    __asm__ volatile("" ::: "memory");
}

static int unread(long count)
{
    int room = 1 << 22;
    for (long sent = 0; sent < count;) {
        int ends[2];
        check(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) == 0);
        check(setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)) == 0);
        /* As many as one queue takes. */
        for (int i = 0; i < 10 && sent < count; i++, sent++)
            check(send(ends[0], buffer, 100, 0) == 100);
        close_unread(ends[1]);
        close(ends[0]);
        /* Long enough for whoever has to find out what this program is. */
        usleep(2000);
    }
    printf("{\"pid\":%d}\n", getpid());
    return 0;
}

/* uring */

static struct {
    int fd;
    unsigned *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
} ring;

static int open_ring(void)
{
    struct io_uring_params params = {0};
    ring.fd = (int)syscall(__NR_io_uring_setup, 4, &params);
    if (ring.fd < 0)
        return errno;
    size_t submissions = params.sq_off.array + params.sq_entries * sizeof(unsigned);
    size_t completions = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
    char *sq = mmap(NULL, submissions, PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd, IORING_OFF_SQ_RING);
    char *cq = mmap(NULL, completions, PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd, IORING_OFF_CQ_RING);
    ring.sqes = mmap(NULL, params.sq_entries * sizeof(*ring.sqes), PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd,
                     IORING_OFF_SQES);
    check(sq != MAP_FAILED && cq != MAP_FAILED && (void *)ring.sqes != MAP_FAILED);
    ring.sq_tail = (unsigned *)(sq + params.sq_off.tail);
    ring.sq_mask = (unsigned *)(sq + params.sq_off.ring_mask);
    ring.sq_array = (unsigned *)(sq + params.sq_off.array);
    ring.cq_head = (unsigned *)(cq + params.cq_off.head);
    ring.cq_tail = (unsigned *)(cq + params.cq_off.tail);
    ring.cq_mask = (unsigned *)(cq + params.cq_off.ring_mask);
    ring.cqes = (struct io_uring_cqe *)(cq + params.cq_off.cqes);
    return 0;
}

/* One operation, waited for. */
static int by_ring(unsigned char operation, int fd, void *data, unsigned length, unsigned flags)
{
    unsigned tail = *ring.sq_tail, at = tail & *ring.sq_mask;
    ring.sqes[at] = (struct io_uring_sqe){
        .opcode = operation, .fd = fd, .addr = (uintptr_t)data, .len = length, .msg_flags = flags};
    ring.sq_array[at] = at;
    __atomic_store_n(ring.sq_tail, tail + 1, __ATOMIC_RELEASE);
    check(syscall(__NR_io_uring_enter, ring.fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) == 1);
    unsigned head = *ring.cq_head;
    check(head != __atomic_load_n(ring.cq_tail, __ATOMIC_ACQUIRE));
    int result = ring.cqes[head & *ring.cq_mask].res;
    __atomic_store_n(ring.cq_head, head + 1, __ATOMIC_RELEASE);
    return result;
}

static int uring(long count)
{
    int port, error = open_ring();
    if (error) {
        printf("{\"error\":%d}\n", error);
        return 0;
    }
    int listener = bound(AF_INET, SOCK_STREAM, &port);
    check(listen(listener, 8) == 0);
    pid_t child = fork();
    check(child >= 0);
    if (child == 0) {
        int fd = accept(listener, NULL, NULL);
        check(fd >= 0);
        while (recv(fd, buffer, 100, MSG_WAITALL) == 100)
            check(send(fd, buffer, 50, 0) == 50);
        _exit(0);
    }
    int fd = connected(AF_INET, SOCK_STREAM, port);
    check(fd >= 0);
    for (int i = 0; i < count; i++) {
        check(by_ring(IORING_OP_SEND, fd, buffer, 100, 0) == 100);
        check(by_ring(IORING_OP_RECV, fd, buffer, 50, MSG_WAITALL) == 50);
    }
    close(fd);
    wait_for(child);
    printf("{\"pid\":%d,\"child\":%d}\n", getpid(), child);
    return 0;
}

/* late */

static int late(const char *host, int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int tries = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    check(fd >= 0 && inet_pton(AF_INET, host, &address.sin_addr) == 1);
    check(setsockopt(fd, IPPROTO_TCP, TCP_SYNCNT, &tries, sizeof(tries)) == 0);
    check(connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 && errno == ETIMEDOUT);
    printf("{\"pid\":%d}\n", getpid());
    return 0;
}

/* rounds, serve */

static int between_hosts(int serves, const char *host, int port, long count)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    uint64_t connect_ns = 0;
    check(fd >= 0 && inet_pton(AF_INET, host, &address.sin_addr) == 1);
    if (serves) {
        check(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0);
        check(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 8) == 0);
        printf("ready\n");
        fflush(stdout);
        fd = accept(fd, NULL, NULL);
        check(fd >= 0);
    } else {
        connect_ns = clock_ns(CLOCK_MONOTONIC);
        check(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
        connect_ns = clock_ns(CLOCK_MONOTONIC) - connect_ns;
    }
    check(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) == 0);
    for (long i = 0; serves || i < count; i++) {
        if (!serves)
            check(send(fd, buffer, 64, 0) == 64);
        long got = recv(fd, buffer, 64, MSG_WAITALL);
        if (serves && got == 0)
            return 0;
        check(got == 64);
        if (serves)
            check(send(fd, buffer, 64, 0) == 64);
    }
    struct tcp_info info = {0};
    socklen_t size = sizeof(info);
    check(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0);
    printf("{\"pid\":%d,\"connect_ns\":%llu,\"srtt_us\":%u,\"retransmits\":%u}\n", getpid(),
           (unsigned long long)connect_ns, info.tcpi_rtt, info.tcpi_total_retrans);
    fflush(stdout);
    close(fd);
    return 0;
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    long number = argc > 2 ? atol(argv[2]) : 0;
    signal(SIGPIPE, SIG_IGN);
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(shared != MAP_FAILED);
    if (strcmp(mode, "traffic") == 0) {
        if (argc > 3)
            usleep((useconds_t)atol(argv[3]) * 1000);
        return traffic(number << 20);
    }
    if (strcmp(mode, "short") == 0)
        return connections(number, 0);
    if (strcmp(mode, "resets") == 0)
        return connections(number, 1);
    if (strcmp(mode, "many") == 0)
        return many(number);
    if (strcmp(mode, "more") == 0)
        return more(number);
    if (strcmp(mode, "existing") == 0)
        return existing();
    if (strcmp(mode, "workers") == 0)
        return workers(number);
    if (strcmp(mode, "drops") == 0)
        return drops(number);
    if (strcmp(mode, "unread") == 0)
        return unread(number);
    if (strcmp(mode, "uring") == 0)
        return uring(number);
    if (argc > 3 && strcmp(mode, "late") == 0)
        return late(argv[2], atoi(argv[3]));
    if (argc > 3 && strcmp(mode, "serve") == 0)
        return between_hosts(1, argv[2], atoi(argv[3]), 0);
    if (argc > 4 && strcmp(mode, "rounds") == 0)
        return between_hosts(0, argv[2], atoi(argv[3]), atol(argv[4]));
    return 2;
}
