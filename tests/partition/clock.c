/* Puts the clocks of one process off, as a file says, while it runs.
 *
 * Loaded with LD_PRELOAD; the file of CLOCK_SHIM_FILE is mapped and looked at with
 * each reading: a jump of the wall clock, and a rate of all clocks. The rate never
 * makes a clock jump: the drift so far is a base that the writer carries over.
 * The file is written under a sequence number, odd while it changes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct skew {
    volatile uint64_t sequence;
    int64_t jump_ns;       /* wall clock only */
    int64_t rate_ppm;      /* faster than the machine's clock by this */
    int64_t since_ns;      /* CLOCK_MONOTONIC at which the rate began */
    int64_t drifted_ns;    /* the drift until then */
};

static const struct skew *shared;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("CLOCK_SHIM_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof(struct skew), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED) shared = mapped;
}

static int64_t nanoseconds(const struct timespec *time) {
    return time->tv_sec * 1000000000LL + time->tv_nsec;
}

static struct skew look(void) {
    struct skew copy;
    /* A writer that died half way must not hang the process. */
    for (int tries = 0; tries < 100000; tries++) {
        uint64_t before = __atomic_load_n(&shared->sequence, __ATOMIC_ACQUIRE);
        copy.jump_ns = shared->jump_ns;
        copy.rate_ppm = shared->rate_ppm;
        copy.since_ns = shared->since_ns;
        copy.drifted_ns = shared->drifted_ns;
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (!(before & 1) && before == shared->sequence) break;
    }
    return copy;
}

int clock_gettime(clockid_t clock, struct timespec *out) {
    int outcome = real_clock_gettime ? real_clock_gettime(clock, out) : (int)syscall(SYS_clock_gettime, clock, out);
    if (outcome != 0 || !shared) return outcome;
    int wall = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
    if (!wall && clock != CLOCK_MONOTONIC && clock != CLOCK_MONOTONIC_COARSE && clock != CLOCK_MONOTONIC_RAW
        && clock != CLOCK_BOOTTIME)
        return 0;
    struct timespec monotonic;
    /* The copy first: a drift that begins between the two must not be read as negative. */
    struct skew skew = look();
    real_clock_gettime(CLOCK_MONOTONIC, &monotonic);
    int64_t drift = skew.drifted_ns + (int64_t)((__int128)(nanoseconds(&monotonic) - skew.since_ns) * skew.rate_ppm / 1000000);
    int64_t shown = nanoseconds(out) + drift + (wall ? skew.jump_ns : 0);
    out->tv_sec = shown / 1000000000LL;
    out->tv_nsec = shown % 1000000000LL;
    return 0;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    (void)zone;
    struct timespec now;
    int outcome = clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return outcome;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
