/* A clock of the day that jumps: days ahead, days back, and in the year 1970, another one at each look.
 * Preloaded into a command; clocks that only measure how long something takes go on as they do. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>

static const long JUMPS[] = {0, 864000, -864000, 5, -5, 315360000, -1700000000, 3600, -3600};

static long jump(void) {
    static unsigned looks;
    return JUMPS[__atomic_fetch_add(&looks, 1, __ATOMIC_RELAXED) % (sizeof JUMPS / sizeof *JUMPS)];
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*usual)(clockid_t, struct timespec *);
    if (!usual) usual = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = usual(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += jump();
    return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    (void)zone;
    int failed = clock_gettime(CLOCK_REALTIME, &exact);
    if (!failed) *now = (struct timeval){exact.tv_sec, exact.tv_nsec / 1000};
    return failed;
}

time_t time(time_t *now) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (now) *now = exact.tv_sec;
    return exact.tv_sec;
}
