/* The bare loop beside which Riverbus' pauses are measured: what this machine does to a program that only allocates.
 *
 * stall MESSAGES BYTES WINDOW SECONDS: keeps a ring of WINDOW allocations of BYTES, replaces the oldest MESSAGES times at
 * an even pace over SECONDS, touches every byte, reads the clock at each step, and prints the longest step in microseconds.
 */
#define _GNU_SOURCE
#include <string.h>

#include "samples.h"

int main(int count, char **arguments) {
    if (count != 5) return fprintf(stderr, "stall MESSAGES BYTES WINDOW SECONDS\n"), 2;
    size_t messages = strtoul(arguments[1], NULL, 10), bytes = strtoul(arguments[2], NULL, 10);
    size_t window = strtoul(arguments[3], NULL, 10), made = 0;
    double interval_ns = atof(arguments[4]) * 1e9 / (double)messages;
    char **ring = calloc(window, sizeof *ring);
    uint64_t start = now_ns(), before = start, now, worst = 0;
    while (made < messages) {
        now = now_ns();
        if (now - before > worst) worst = now - before;
        before = now;
        if (start + (uint64_t)((double)made * interval_ns) > now) continue;
        char **slot = &ring[made++ % window];
        free(*slot);
        *slot = malloc(bytes);
        if (*slot == NULL) return fprintf(stderr, "out of memory\n"), 1;
        memset(*slot, (int)made, bytes);
    }
    printf("%.1f\n", (double)worst / 1000.0);
    return 0;
}
