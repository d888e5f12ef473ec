/* A link between two interfaces that takes its time and loses frames.
 *
 * usage: link DELAY_US LOSE INTERFACE INTERFACE
 *   Passes on each frame that comes in at one of the interfaces to the other, DELAY_US later; but not every LOSE-th that
 *   carries data (0: none is lost) of those from the first to the second. Says `ready`; ends when killed. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "burn.h"

enum { FRAMES = 4096, FRAME = 2048, HEADERS = 14 + 20 + 32 };

static struct frame {
    uint64_t due_ns;
    int to;
    long size;
    unsigned char bytes[FRAME];
} frames[FRAMES];

static void check(int ok)
{
    if (!ok) {
        perror("link");
        abort();
    }
}

static uint64_t now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

static int open_interface(const char *name)
{
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
    int one = 1, fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
    address.sll_ifindex = (int)if_nametoindex(name);
    check(fd >= 0 && address.sll_ifindex != 0);
    /* With what the sender left to its hardware to do. */
    check(setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)) == 0);
    check(setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)) == 0);
    check(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    return fd;
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    uint64_t delay_ns = (uint64_t)atol(argv[1]) * 1000;
    long lose = atol(argv[2]), carrying = 0;
    unsigned long first = 0, next = 0;
    struct pollfd fds[2] = {{open_interface(argv[3]), POLLIN, 0}, {open_interface(argv[4]), POLLIN, 0}};
    /* Whoever starts it may end without ending it. */
    prctl(PR_SET_PDEATHSIG, 9);
    prctl(PR_SET_TIMERSLACK, 1);
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        struct timespec until = {1, 0};
        if (first != next) {
            uint64_t now = now_ns(), due = frames[first % FRAMES].due_ns;
            uint64_t left = due > now ? due - now : 0;
            until = (struct timespec){(time_t)(left / 1000000000), (long)(left % 1000000000)};
        }
        check(ppoll(fds, 2, &until, NULL) >= 0);
        for (int from = 0; from < 2; from++) {
            if (!(fds[from].revents & POLLIN))
                continue;
            struct frame *frame = &frames[next % FRAMES];
            check(next - first < FRAMES);
            frame->size = recv(fds[from].fd, frame->bytes, FRAME, MSG_TRUNC);
            check(frame->size > 0 && frame->size <= FRAME);
            int carries = frame->size > (long)sizeof(struct virtio_net_hdr) + HEADERS;
            if (from == 0 && carries && lose && ++carrying % lose == 0)
                continue;
            frame->to = fds[1 - from].fd;
            frame->due_ns = now_ns() + delay_ns;
            next++;
        }
        for (; first != next && frames[first % FRAMES].due_ns <= now_ns(); first++) {
            struct frame *frame = &frames[first % FRAMES];
            /* The interface may be gone. */
            if (send(frame->to, frame->bytes, (size_t)frame->size, 0) < 0)
                continue;
        }
    }
}
