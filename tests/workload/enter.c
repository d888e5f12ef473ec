/* Puts itself somewhere else and then becomes another program: how a test makes a chroot, a mount namespace or a pid
 * namespace without a container engine. Needs root.
 *
 * usage: enter STEP... -- PROGRAM ARGUMENT...
 *   chroot=DIR    chroot and change to its root
 *   tmpfs=DIR     a private mount namespace in which DIR is an empty tmpfs
 *   full=DIR      the same, but it has no room left: its one page is taken
 *   bind=FROM:TO  a private mount namespace in which TO shows FROM
 *   copy=FROM:TO  copy a file, executable (into the tmpfs, say)
 *   pidns         a new pid namespace: the rest runs as its process 1, whose exit status is passed on
 *   cgroup=DIR    move itself into a cgroup (a directory of the cgroup file system)
 *   nobody        become the user and group 65534, without capabilities now and later */
#define _GNU_SOURCE
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "burn.h"

static void check(long result, const char *what)
{
    if (result < 0) {
        perror(what);
        exit(71);
    }
}

static void private_mounts(void)
{
    check(unshare(CLONE_NEWNS), "unshare mounts");
    check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "make mounts private");
}

static char *split_pair(char *pair)
{
    char *colon = strchr(pair, ':');
    if (!colon)
        fprintf(stderr, "%s: no colon\n", pair), exit(64);
    *colon = 0;
    return colon + 1;
}

static void copy(const char *from, const char *to)
{
    struct stat status;
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0755);
    check(in, from), check(out, to), check(fstat(in, &status), from);
    for (off_t left = status.st_size; left > 0;) {
        ssize_t n = sendfile(out, in, NULL, (size_t)left);
        check(n > 0 ? 0 : -1, "copy");
        left -= n;
    }
    close(in), close(out);
}

static void full_disk(const char *directory)
{
    char path[4096], page[4096] = {1};
    private_mounts(), check(mount("tmpfs", directory, "tmpfs", 0, "size=4k"), directory);
    snprintf(path, sizeof path, "%s/filler", directory);
    int file = open(path, O_WRONLY | O_CREAT, 0600);
    check(file, path), check(write(file, page, sizeof page), path), close(file);
}

static void pid_namespace(void)
{
    check(unshare(CLONE_NEWPID), "unshare pids");
    pid_t child = fork();
    check(child, "fork");
    if (child == 0)
        return;
    int status;
    check(waitpid(child, &status, 0), "wait");
    exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static void cgroup(const char *directory)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/cgroup.procs", directory);
    int file = open(path, O_WRONLY);
    check(file, path), check(write(file, "0", 1), path), close(file);
}

/* The kernel takes the permitted and effective capabilities away with the user id. */
static void nobody(void)
{
    for (int capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; capability++)
        check(prctl(PR_CAPBSET_DROP, capability, 0, 0, 0), "drop a capability");
    check(setgroups(0, NULL), "setgroups");
    check(setresgid(65534, 65534, 65534), "setresgid");
    check(setresuid(65534, 65534, 65534), "setresuid");
}

int main(int argc, char **argv)
{
    int i = 1;
    for (; i < argc && strcmp(argv[i], "--"); i++) {
        char *value = strchr(argv[i], '=');
        value = value ? value + 1 : argv[i];
        if (!strncmp(argv[i], "chroot=", 7))
            check(chroot(value), value), check(chdir("/"), "/");
        else if (!strncmp(argv[i], "tmpfs=", 6))
            private_mounts(), check(mount("tmpfs", value, "tmpfs", 0, "size=64m"), value);
        else if (!strncmp(argv[i], "full=", 5))
            full_disk(value);
        else if (!strncmp(argv[i], "bind=", 5)) {
            char *to = split_pair(value);
            private_mounts(), check(mount(value, to, NULL, MS_BIND, NULL), to);
        } else if (!strncmp(argv[i], "copy=", 5)) {
            char *to = split_pair(value);
            copy(value, to);
        } else if (!strcmp(argv[i], "pidns"))
            pid_namespace();
        else if (!strcmp(argv[i], "nobody"))
            nobody();
        else if (!strncmp(argv[i], "cgroup=", 7))
            cgroup(value);
        else
            return fprintf(stderr, "%s: unknown step\n", argv[i]), 64;
    }
    if (++i >= argc)
        return 64;
    execv(argv[i], argv + i);
    perror(argv[i]);
    return 127;
}
