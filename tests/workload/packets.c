/* Packets whose number is known, in network namespaces of its own; the host's interfaces are left alone.
 *
 *   packets inside PROGRAM ...   makes a namespace with loopback up, and executes the program there
 *   packets here N               in such a namespace: N datagrams over loopback that are read, N/2 to a port that nobody has, N/4
 *                                into a socket whose buffer is full, N/8 frames of a protocol that nobody has
 *   packets veth N               two namespaces joined by a pair of interfaces: N datagrams from one to the other
 *   packets queue N              loopback behind a token bucket that lets one datagram pass each 4 ms and has room for N / 8:
 *                                N datagrams at once
 *
 *   packets flood N              in such a namespace: N datagrams over loopback, each read before the next is sent; says ns each
 *                                in the fastest batch
 *
 * veth and queue say `ready` and wait for a line first. All but `inside` and `flood` then say what was sent and what the kernel counted, as an
 * object on one line, and `done`; then they read their input to its end.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PAYLOAD 1000
/* What the link's, the network's and the datagram's header add to it: Ethernet, IPv4, UDP. */
#define ON_WIRE (PAYLOAD + 14 + 20 + 8)
#define BATCH 500
#define EACH_NS 4000000LL
/* "Local Experimental Ethertype 1" (IEEE 802): nobody handles it. */
#define NOBODYS_PROTOCOL 0x88b5

static char payload[PAYLOAD];

static void check(int ok, const char *what) {
    if (!ok) {
        perror(what);
        exit(1);
    }
}

static void write_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY);
    if (fd >= 0) {
        check(write(fd, text, strlen(text)) > 0, path);
        close(fd);
    }
}

/* A namespace without IPv6: it would send of its own. */
static void new_namespace(int without_ipv6) {
    check(unshare(CLONE_NEWNET) == 0, "unshare");
    if (without_ipv6) {
        write_file("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
        write_file("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    }
}

static int open_namespace(void) {
    int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    check(fd >= 0, "/proc/thread-self/ns/net");
    return fd;
}

static unsigned long inode_of(int fd) {
    struct stat st;
    check(fstat(fd, &st) == 0, "fstat");
    return (unsigned long)st.st_ino;
}

static void up(const char *name, const char *address) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    check(fd >= 0, "socket");
    struct ifreq request;
    memset(&request, 0, sizeof request);
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    if (address) {
        struct sockaddr_in *in = (struct sockaddr_in *)&request.ifr_addr;
        in->sin_family = AF_INET;
        inet_pton(AF_INET, address, &in->sin_addr);
        check(ioctl(fd, SIOCSIFADDR, &request) == 0, "SIOCSIFADDR");
    }
    check(ioctl(fd, SIOCGIFFLAGS, &request) == 0, "SIOCGIFFLAGS");
    request.ifr_flags |= IFF_UP;
    check(ioctl(fd, SIOCSIFFLAGS, &request) == 0, "SIOCSIFFLAGS");
    close(fd);
}

/* A message of rtnetlink, attribute by attribute. */
static struct {
    struct nlmsghdr header;
    char data[1024];
} message;

static void *append(size_t size) {
    void *at = (char *)&message + NLMSG_ALIGN(message.header.nlmsg_len);
    memset(at, 0, size);
    message.header.nlmsg_len = NLMSG_ALIGN(message.header.nlmsg_len) + size;
    return at;
}

static struct rtattr *attribute(int type, const void *data, size_t size) {
    struct rtattr *attribute = append(RTA_LENGTH(size));
    attribute->rta_type = type;
    attribute->rta_len = RTA_LENGTH(size);
    if (data)
        memcpy(RTA_DATA(attribute), data, size);
    return attribute;
}

static void close_attribute(struct rtattr *attribute) {
    attribute->rta_len = (char *)&message + NLMSG_ALIGN(message.header.nlmsg_len) - (char *)attribute;
}

static void begin(int type) {
    memset(&message, 0, sizeof message);
    message.header.nlmsg_len = NLMSG_LENGTH(0);
    message.header.nlmsg_type = type;
    message.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
}

static void ask(const char *what) {
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    check(fd >= 0, "netlink");
    check(send(fd, &message, message.header.nlmsg_len, 0) > 0, what);
    struct {
        struct nlmsghdr header;
        struct nlmsgerr error;
        char rest[1024];
    } answer;
    check(recv(fd, &answer, sizeof answer, 0) > 0, what);
    errno = -answer.error.error;
    check(answer.header.nlmsg_type == NLMSG_ERROR && errno == 0, what);
    close(fd);
}

static const unsigned char LEFT_MAC[6] = {2, 0, 0, 0, 0, 1}, RIGHT_MAC[6] = {2, 0, 0, 0, 0, 2};

/* Interfaces `left` here and `right` in another namespace. */
static void make_pair(int other) {
    begin(RTM_NEWLINK);
    append(sizeof(struct ifinfomsg));
    attribute(IFLA_IFNAME, "left", 5);
    attribute(IFLA_ADDRESS, LEFT_MAC, 6);
    struct rtattr *info = attribute(IFLA_LINKINFO, NULL, 0);
    attribute(IFLA_INFO_KIND, "veth", 4);
    struct rtattr *data = attribute(IFLA_INFO_DATA, NULL, 0), *peer = attribute(VETH_INFO_PEER, NULL, 0);
    append(sizeof(struct ifinfomsg));
    attribute(IFLA_IFNAME, "right", 6);
    attribute(IFLA_ADDRESS, RIGHT_MAC, 6);
    attribute(IFLA_NET_NS_FD, &other, sizeof other);
    close_attribute(peer);
    close_attribute(data);
    close_attribute(info);
    ask("cannot make a veth pair");
}

/* A neighbour that nobody need be asked for. */
static void neighbour(const char *device, const char *address, const unsigned char *mac) {
    struct arpreq request;
    memset(&request, 0, sizeof request);
    struct sockaddr_in *in = (struct sockaddr_in *)&request.arp_pa;
    in->sin_family = AF_INET;
    inet_pton(AF_INET, address, &in->sin_addr);
    request.arp_ha.sa_family = ARPHRD_ETHER;
    memcpy(request.arp_ha.sa_data, mac, 6);
    request.arp_flags = ATF_PERM | ATF_COM;
    strncpy(request.arp_dev, device, sizeof request.arp_dev - 1);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    check(ioctl(fd, SIOCSARP, &request) == 0, "SIOCSARP");
    close(fd);
}

/* A token bucket on loopback, with tokens for one datagram. */
static void make_bucket(long room) {
    begin(RTM_NEWQDISC);
    struct tcmsg *tc = append(sizeof *tc);
    tc->tcm_ifindex = if_nametoindex("lo");
    tc->tcm_parent = TC_H_ROOT;
    attribute(TCA_KIND, "tbf", 4);
    struct rtattr *options = attribute(TCA_OPTIONS, NULL, 0);
    struct tc_tbf_qopt bucket;
    memset(&bucket, 0, sizeof bucket);
    bucket.rate.linklayer = TC_LINKLAYER_ETHERNET;
    bucket.rate.rate = ON_WIRE * 1000000000LL / EACH_NS;
    bucket.limit = room * ON_WIRE;
    /* In ticks of 64 ns (PSCHED_SHIFT, include/net/pkt_sched.h), and a little more: rates are rounded. */
    bucket.buffer = EACH_NS / 64 * 101 / 100;
    attribute(TCA_TBF_PARMS, &bucket, sizeof bucket);
    unsigned burst = ON_WIRE * 101 / 100;
    attribute(TCA_TBF_BURST, &burst, sizeof burst);
    close_attribute(options);
    ask("cannot make a token bucket");
}

static long long now_ns(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static int receiver(int family, const char *address, int port, struct sockaddr_storage *at, socklen_t *size) {
    int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    memset(at, 0, sizeof *at);
    if (family == AF_INET) {
        struct sockaddr_in *in = (struct sockaddr_in *)at;
        in->sin_family = AF_INET;
        in->sin_port = htons(port);
        inet_pton(AF_INET, address, &in->sin_addr);
        *size = sizeof *in;
    } else {
        struct sockaddr_in6 *in = (struct sockaddr_in6 *)at;
        in->sin6_family = AF_INET6;
        in->sin6_port = htons(port);
        inet_pton(AF_INET6, address, &in->sin6_addr);
        *size = sizeof *in;
    }
    check(fd >= 0 && bind(fd, (struct sockaddr *)at, *size) == 0, "bind");
    /* Nothing takes a second, unless it is lost. */
    struct timeval patience = {.tv_sec = 20};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return fd;
}

/* What the kernel counted of an interface of this namespace. */
struct counted {
    unsigned long long rx_packets, rx_bytes, tx_packets, tx_bytes;
};

static struct counted counted(const char *name) {
    struct counted counted = {0};
    char line[512], found[64];
    FILE *file = fopen("/proc/thread-self/net/dev", "r");
    check(file != NULL, "/proc/thread-self/net/dev");
    while (fgets(line, sizeof line, file)) {
        struct counted c;
        if (sscanf(line, " %63[^:]: %llu %llu %*u %*u %*u %*u %*u %*u %llu %llu", found, &c.rx_bytes, &c.rx_packets,
                   &c.tx_bytes, &c.tx_packets) == 5 && !strcmp(found, name))
            counted = c;
    }
    fclose(file);
    return counted;
}

static void say_counted(const char *name, struct counted before, struct counted after) {
    printf(", \"%s\": {\"rx_packets\": %llu, \"rx_bytes\": %llu, \"tx_packets\": %llu, \"tx_bytes\": %llu}", name,
           after.rx_packets - before.rx_packets, after.rx_bytes - before.rx_bytes, after.tx_packets - before.tx_packets,
           after.tx_bytes - before.tx_bytes);
}

static void wait_for_go(void) {
    printf("ready\n");
    fflush(stdout);
    check(getchar() == '\n', "it is told to go on");
}

static void done(void) {
    printf("}\ndone\n");
    fflush(stdout);
    while (getchar() != EOF)
        ;
}

/* Sends one datagram and reads it. */
static void pass(int from, int to, struct sockaddr_storage *at, socklen_t size) {
    char read[PAYLOAD + 1];
    check(sendto(from, payload, PAYLOAD, 0, (struct sockaddr *)at, size) == PAYLOAD, "sendto");
    check(recv(to, read, sizeof read, 0) == PAYLOAD, "recv");
}

static void here(long n) {
    struct sockaddr_storage at;
    socklen_t size;
    int to = receiver(AF_INET6, "::1", 4001, &at, &size);
    int from = socket(AF_INET6, SOCK_DGRAM, 0), full;
    struct counted before = counted("lo");
    for (long i = 0; i < n; i++)
        pass(from, to, &at, size);
    /* Nobody has that port; the answers that say so come to nobody either, as the socket asks for none. */
    ((struct sockaddr_in6 *)&at)->sin6_port = htons(4002);
    for (long i = 0; i < n / 2; i++)
        check(sendto(from, payload, PAYLOAD, 0, (struct sockaddr *)&at, size) == PAYLOAD, "sendto");
    full = receiver(AF_INET6, "::1", 4003, &at, &size);
    int room = 1;
    setsockopt(full, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    for (long i = 0; i < n / 4; i++)
        check(sendto(from, payload, PAYLOAD, 0, (struct sockaddr *)&at, size) == PAYLOAD, "sendto");
    long kept = 0;
    char read[PAYLOAD + 1];
    while (recv(full, read, sizeof read, MSG_DONTWAIT) == PAYLOAD)
        kept++;
    int raw = socket(AF_PACKET, SOCK_DGRAM, 0);
    struct sockaddr_ll link = {.sll_family = AF_PACKET, .sll_protocol = htons(NOBODYS_PROTOCOL), .sll_halen = 6};
    link.sll_ifindex = if_nametoindex("lo");
    for (long i = 0; i < n / 8; i++)
        check(sendto(raw, payload, PAYLOAD, 0, (struct sockaddr *)&link, sizeof link) == PAYLOAD, "packet");
    printf("{\"passed\": %ld, \"to_nobody\": %ld, \"overflowed\": %ld, \"unhandled\": %ld", n, n / 2, n / 4 - kept, n / 8);
    say_counted("lo", before, counted("lo"));
    done();
}

static void flood(long n) {
    struct sockaddr_storage at;
    socklen_t size;
    int to = receiver(AF_INET, "127.0.0.1", 4001, &at, &size), from = socket(AF_INET, SOCK_DGRAM, 0);
    for (long i = 0; i < n / 10; i++)
        pass(from, to, &at, size);
    /* The fastest of many short batches: what else the machine does hits the others. */
    long long fastest = 0;
    for (long left = n; left > 0; left -= BATCH) {
        long long begin = now_ns();
        for (long i = 0; i < BATCH; i++)
            pass(from, to, &at, size);
        long long ns = now_ns() - begin;
        if (fastest == 0 || ns < fastest)
            fastest = ns;
    }
    printf("%.1f\n", (double)fastest / BATCH);
}

static void veth(long n) {
    new_namespace(1);
    int right = open_namespace();
    up("lo", NULL);
    new_namespace(1);
    int left = open_namespace();
    up("lo", NULL);
    make_pair(right);
    up("left", "10.9.8.1");
    neighbour("left", "10.9.8.2", RIGHT_MAC);
    int from = socket(AF_INET, SOCK_DGRAM, 0);
    check(setns(right, CLONE_NEWNET) == 0, "setns");
    up("right", "10.9.8.2");
    neighbour("right", "10.9.8.1", LEFT_MAC);
    struct sockaddr_storage at;
    socklen_t size;
    int to = receiver(AF_INET, "10.9.8.2", 4001, &at, &size);
    wait_for_go();
    struct counted right_before = counted("right");
    check(setns(left, CLONE_NEWNET) == 0, "setns");
    struct counted left_before = counted("left");
    for (long i = 0; i < n; i++)
        pass(from, to, &at, size);
    printf("{\"passed\": %ld, \"on_wire\": %d, \"left_netns\": %lu, \"right_netns\": %lu", n, ON_WIRE, inode_of(left),
           inode_of(right));
    say_counted("left", left_before, counted("left"));
    check(setns(right, CLONE_NEWNET) == 0, "setns");
    say_counted("right", right_before, counted("right"));
    done();
}

static int compare(const void *a, const void *b) {
    long long left = *(const long long *)a, right = *(const long long *)b;
    return (left > right) - (left < right);
}

static void queue(long n) {
    new_namespace(1);
    up("lo", NULL);
    make_bucket(n / 8);
    struct sockaddr_storage at;
    socklen_t size;
    int to = receiver(AF_INET, "127.0.0.1", 4001, &at, &size);
    int from = socket(AF_INET, SOCK_DGRAM, 0), room = n * 4096;
    setsockopt(to, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    long long before[n], after[n], at_least[n], at_most[n], least = 0, most = 0;
    wait_for_go();
    for (long i = 0; i < n; i++) {
        memcpy(payload, &i, sizeof i);
        before[i] = now_ns();
        check(sendto(from, payload, PAYLOAD, 0, (struct sockaddr *)&at, size) == PAYLOAD, "sendto");
        after[i] = now_ns();
    }
    struct timeval patience = {.tv_sec = 2};
    setsockopt(to, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    long passed = 0, i;
    while (recv(to, payload, PAYLOAD, 0) == PAYLOAD) {
        /* It was handed over before it came here; and not before the bucket had tokens again so many times. */
        memcpy(&i, payload, sizeof i);
        at_most[passed] = now_ns() - before[i];
        at_least[passed] = passed * EACH_NS * 98 / 100 - (after[i] - before[0]);
        if (at_least[passed] < 0)
            at_least[passed] = 0;
        least += at_least[passed];
        most += at_most[passed];
        passed++;
    }
    check(passed > 0, "nothing came through");
    /* Each time is between its two bounds, so that each of them in order is between the bounds in order. */
    qsort(at_least, passed, sizeof *at_least, compare);
    qsort(at_most, passed, sizeof *at_most, compare);
    long middle = (passed + 1) / 2 - 1, last = passed - 1;
    printf("{\"passed\": %ld, \"dropped\": %ld, \"netns\": %lu, \"least_ns\": %lld, \"most_ns\": %lld, \"median_least_ns\": "
           "%lld, \"median_most_ns\": %lld, \"longest_least_ns\": %lld, \"longest_most_ns\": %lld",
           passed, n - passed, inode_of(open_namespace()), least, most, at_least[middle], at_most[middle], at_least[last],
           at_most[last]);
    done();
}

int main(int argc, char **argv) {
    check(argc >= 3, "packets MODE ...");
    if (!strcmp(argv[1], "inside")) {
        new_namespace(0);
        up("lo", NULL);
        execv(argv[2], argv + 2);
        check(0, argv[2]);
    }
    long n = atol(argv[2]);
    if (!strcmp(argv[1], "here"))
        here(n);
    else if (!strcmp(argv[1], "flood"))
        flood(n);
    else if (!strcmp(argv[1], "veth"))
        veth(n);
    else if (!strcmp(argv[1], "queue"))
        queue(n);
    return 0;
}
