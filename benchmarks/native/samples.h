/* Times in microseconds, all of them kept, so that a percentile is a fact and not a bucket's edge. */
#ifndef SAMPLES_H
#define SAMPLES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct samples {
    float *values;
    size_t count, room;
};

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void add_sample(struct samples *samples, uint64_t from_ns, uint64_t until_ns) {
    if (samples->count == samples->room) {
        samples->room = samples->room ? samples->room * 2 : 1 << 20;
        samples->values = realloc(samples->values, samples->room * sizeof *samples->values);
        if (samples->values == NULL) abort();
    }
    samples->values[samples->count++] = until_ns > from_ns ? (float)(until_ns - from_ns) / 1000.0f : 0.0f;
}

static int by_value(const void *left, const void *right) {
    float difference = *(const float *)left - *(const float *)right;
    return (difference > 0) - (difference < 0);
}

static double percentile(const struct samples *sorted, double part) {
    size_t at = (size_t)(part * (double)sorted->count);
    return sorted->values[at < sorted->count ? at : sorted->count - 1];
}

static void print_samples(const char *name, struct samples *samples) {
    if (samples->count == 0) return;
    qsort(samples->values, samples->count, sizeof *samples->values, by_value);
    printf("\"%s\": {\"count\": %zu, \"p50\": %.1f, \"p99\": %.1f, \"p999\": %.1f, \"max\": %.1f}, ", name, samples->count,
           percentile(samples, 0.5), percentile(samples, 0.99), percentile(samples, 0.999), percentile(samples, 1.0));
}

#endif
