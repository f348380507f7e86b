/* The bytes of the two protocols that the load generator speaks: RESP2 and NATS' text protocol.
 *
 * Only what a benchmark sends and gets: publish, add, subscribe, ping; replies counted, deliveries by fixed size (RESP)
 * or by frame (NATS). What looks like an error is counted by the caller, never skipped.
 */
#ifndef WIRE_H
#define WIRE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bytes {
    char *data;
    size_t size;
};

static struct bytes make_payload(size_t size) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    struct bytes payload = {malloc(size), size};
    uint32_t state = 2463534242u; /* xorshift: bytes that don't compress, the same in each run */
    for (size_t at = 0; at < size; at++) {
        state ^= state << 13, state ^= state >> 17, state ^= state << 5;
        payload.data[at] = letters[state & 63];
    }
    return payload;
}

static struct bytes framed(const char *head, struct bytes payload) {
    size_t head_size = strlen(head);
    struct bytes whole = {malloc(head_size + payload.size + 2), head_size + payload.size + 2};
    memcpy(whole.data, head, head_size);
    memcpy(whole.data + head_size, payload.data, payload.size);
    memcpy(whole.data + head_size + payload.size, "\r\n", 2);
    return whole;
}

static struct bytes resp_publish(const char *channel, struct bytes payload) {
    char head[512];
    snprintf(head, sizeof head, "*3\r\n$7\r\nPUBLISH\r\n$%zu\r\n%s\r\n$%zu\r\n", strlen(channel), channel, payload.size);
    return framed(head, payload);
}

static struct bytes resp_add(const char *stream, struct bytes payload) {
    char head[512];
    snprintf(head, sizeof head, "*5\r\n$4\r\nXADD\r\n$%zu\r\n%s\r\n$1\r\n*\r\n$1\r\nf\r\n$%zu\r\n", strlen(stream), stream,
             payload.size);
    return framed(head, payload);
}

static struct bytes resp_delivery(const char *channel, struct bytes payload) {
    char head[512];
    snprintf(head, sizeof head, "*3\r\n$7\r\nmessage\r\n$%zu\r\n%s\r\n$%zu\r\n", strlen(channel), channel, payload.size);
    return framed(head, payload);
}

/* `:1` answers the first and only subscription of a connection, so the confirmation has a fixed size. */
static void resp_subscribe(const char *channel, char *request, char *confirmation, size_t room) {
    snprintf(request, room, "*2\r\n$9\r\nSUBSCRIBE\r\n$%zu\r\n%s\r\n", strlen(channel), channel);
    snprintf(confirmation, room, "*3\r\n$9\r\nsubscribe\r\n$%zu\r\n%s\r\n:1\r\n", strlen(channel), channel);
}

static struct bytes nats_publish(const char *subject, const char *inbox, struct bytes payload) {
    char head[512];
    snprintf(head, sizeof head, "PUB %s %s %zu\r\n", subject, inbox, payload.size);
    return framed(head, payload);
}

#define NATS_CONNECT "CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"c\",\"version\":\"1\",\"protocol\":1}\r\n"

enum frame_kind { FRAME_PARTIAL, FRAME_MESSAGE, FRAME_PING, FRAME_ERROR, FRAME_OTHER };

struct frame {
    enum frame_kind kind;
    size_t size; /* of the whole frame, line ends included */
    const char *payload;
    size_t payload_size;
};

/* The next frame at `data`: `MSG subject sid [reply] size\r\n payload \r\n`, or a line. */
static struct frame nats_frame(const char *data, size_t size) {
    struct frame frame = {FRAME_PARTIAL, 0, NULL, 0};
    const char *end = memchr(data, '\n', size);
    if (end == NULL) return frame;
    size_t line = (size_t)(end - data) + 1;
    if (memcmp(data, "MSG ", 4) != 0) {
        frame.kind = data[0] == '-' ? FRAME_ERROR : memcmp(data, "PING", 4) == 0 ? FRAME_PING : FRAME_OTHER;
        frame.size = line;
        return frame;
    }
    const char *digits = end;
    while (digits[-1] != ' ') digits--;
    size_t payload_size = strtoul(digits, NULL, 10);
    if (size < line + payload_size + 2) return frame;
    frame = (struct frame){FRAME_MESSAGE, line + payload_size + 2, data + line, payload_size};
    return frame;
}

#endif
