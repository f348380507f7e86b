/* A load generator for consumer groups: one thread, poll, raw RESP2, no client library.
 *
 * A publisher fills the stream with `entries` by XADD; then the group is made, and each consumer asks in a closed loop
 * for `count` entries (XREADGROUP ... COUNT count BLOCK 1000), compares what it got with what was added, acknowledges all
 * of it by one XACK, waits for that answer, and asks again. With feeds=1 the publisher goes on meanwhile, with `window` in
 * flight, and keeps the group at most `entries` behind, for `warmup` + `seconds`; else the run ends with the stream.
 *
 * Arguments are key=value, see `options`. Prints one JSON object. Exit code 1: the run is void, reason on stderr. Entries
 * are counted when XACK answers, and all that it names must have been pending: so a run that ends with all acknowledged
 * has handed out each once. Without feeds=1 the first tenth is the warm-up, and is not in the figure.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

#include "samples.h"
#include "wire.h"

#define CONSUMERS_MAX 64
#define PORTS_MAX 16
#define COUNT_MAX 1000
#define FILL_WINDOW 1024 /* of the filling beforehand, which is not measured */
#define ID_BYTES_MAX 48
#define PATIENCE_MS 10000

static struct {
    int publish_port, ports[PORTS_MAX], port_count; /* consumers are dealt over the ports in turn */
    long consumers, count, entries, window;
    size_t bytes;
    bool feeds;
    double warmup, seconds;
    const char *stream;
} options = {.consumers = 1, .count = 100, .window = 256, .bytes = 100, .seconds = 1, .stream = "bench"};

struct connection {
    int fd;
    char *in; /* what was read and is not a whole answer yet */
    size_t in_size, in_room;
    long number, asked; /* asked: how many entries its XACK names; 0: it waits for XREADGROUP's answer */
};

static struct connection publisher, consumers[CONSUMERS_MAX];
static struct bytes payload, add;
static char *adds; /* FILL_WINDOW times `add` */
static uint64_t sent, added, acked, now, starved;

static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static void open_connection(struct connection *connection, int port, long number) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1;
    *connection = (struct connection){.fd = socket(AF_INET, SOCK_STREAM, 0), .number = number, .in_room = 1 << 16};
    connection->in = malloc(connection->in_room);
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(connection->fd, (struct sockaddr *)&address, sizeof address) != 0) die("connect: %m");
}

static void transmit(struct connection *connection, const char *data, size_t size) {
    while (size > 0) {
        ssize_t done = send(connection->fd, data, size, MSG_NOSIGNAL);
        if (done < 0) die("send: %m");
        data += done, size -= (size_t)done;
    }
}

static void receive(struct connection *connection) {
    if (connection->in_size == connection->in_room) connection->in = realloc(connection->in, connection->in_room *= 2);
    ssize_t got = recv(connection->fd, connection->in + connection->in_size, connection->in_room - connection->in_size, 0);
    if (got <= 0) die("the server closed a connection");
    connection->in_size += (size_t)got;
    if (connection->in[0] == '-') die("refused: %.*s", (int)strcspn(connection->in, "\r"), connection->in);
}

static void drop(struct connection *connection, size_t used) {
    connection->in_size -= used;
    memmove(connection->in, connection->in + used, connection->in_size);
}

/* --- parsing: each returns false while the answer is not whole -------------------------------------------------------- */

struct cursor {
    const char *at, *end;
};

static bool take_number(struct cursor *cursor, char kind, long *number) {
    const char *end = memchr(cursor->at, '\n', (size_t)(cursor->end - cursor->at));
    if (end == NULL) return false;
    if (*cursor->at != kind) die("not the answer that was expected: %.*s", (int)(end - cursor->at - 1), cursor->at);
    *number = strtol(cursor->at + 1, NULL, 10);
    cursor->at = end + 1;
    return true;
}

static bool take_bulk(struct cursor *cursor, struct bytes *bulk) {
    long size;
    if (!take_number(cursor, '$', &size) || cursor->end - cursor->at < size + 2) return false;
    *bulk = (struct bytes){(char *)cursor->at, (size_t)size};
    cursor->at += size + 2;
    return true;
}

/* XREADGROUP's answer: [[stream, [[id, [field, value]], ...]]], or null. The ids point into the answer. */
static bool take_entries(struct cursor *cursor, struct bytes *ids, long *count) {
    long streams, pair, fields;
    struct bytes text;
    *count = 0;
    if (!take_number(cursor, '*', &streams)) return false;
    if (streams < 0) return true;
    if (!take_number(cursor, '*', &pair) || !take_bulk(cursor, &text) || !take_number(cursor, '*', count)) return false;
    if (streams != 1 || pair != 2 || *count > options.count) die("an answer of %ld streams, %ld entries", streams, *count);
    for (long at = 0; at < *count; at++) {
        if (!take_number(cursor, '*', &pair) || !take_bulk(cursor, &ids[at])) return false;
        if (!take_number(cursor, '*', &fields) || !take_bulk(cursor, &text) || !take_bulk(cursor, &text)) return false;
        if (pair != 2 || fields != 2 || ids[at].size > ID_BYTES_MAX) die("an entry with other parts");
        if (text.size != payload.size || memcmp(text.data, payload.data, text.size) != 0) die("not what was added");
    }
    return true;
}

/* --- the publisher ---------------------------------------------------------------------------------------------------- */

static void publish_to(uint64_t sent_max, uint64_t window) {
    if (sent_max > added + window) sent_max = added + window;
    if (sent >= sent_max) return;
    transmit(&publisher, adds, (size_t)(sent_max - sent) * add.size);
    sent = sent_max;
}

static void on_added(void) {
    receive(&publisher);
    struct cursor cursor = {publisher.in, publisher.in + publisher.in_size}, whole = cursor;
    for (struct bytes id; whole.at < whole.end && take_bulk(&whole, &id); cursor = whole) added++;
    drop(&publisher, (size_t)(cursor.at - publisher.in));
}

static void fill(void) {
    char create[512];
    while (added < (uint64_t)options.entries) {
        publish_to((uint64_t)options.entries, FILL_WINDOW);
        on_added();
    }
    snprintf(create, sizeof create, "*5\r\n$6\r\nXGROUP\r\n$6\r\nCREATE\r\n$%zu\r\n%s\r\n$5\r\ngroup\r\n$1\r\n0\r\n",
             strlen(options.stream), options.stream);
    transmit(&publisher, create, strlen(create));
    while (publisher.in_size < 5) receive(&publisher);
    drop(&publisher, 5); /* +OK */
}

/* --- consumers -------------------------------------------------------------------------------------------------------- */

static void ask(struct connection *consumer) {
    char request[512], name[16], count[16];
    snprintf(name, sizeof name, "c%ld", consumer->number);
    snprintf(count, sizeof count, "%ld", options.count);
    snprintf(request, sizeof request,
             "*11\r\n$10\r\nXREADGROUP\r\n$5\r\nGROUP\r\n$5\r\ngroup\r\n$%zu\r\n%s\r\n$5\r\nCOUNT\r\n$%zu\r\n%s\r\n"
             "$5\r\nBLOCK\r\n$4\r\n1000\r\n$7\r\nSTREAMS\r\n$%zu\r\n%s\r\n$1\r\n>\r\n",
             strlen(name), name, strlen(count), count, strlen(options.stream), options.stream);
    consumer->asked = 0;
    transmit(consumer, request, strlen(request));
}

static void acknowledge(struct connection *consumer, const struct bytes *ids, long count) {
    static char request[COUNT_MAX * (ID_BYTES_MAX + 16) + 512];
    int size = sprintf(request, "*%ld\r\n$4\r\nXACK\r\n$%zu\r\n%s\r\n$5\r\ngroup\r\n", count + 3,
                       strlen(options.stream), options.stream);
    for (long at = 0; at < count; at++)
        size += sprintf(request + size, "$%zu\r\n%.*s\r\n", ids[at].size, (int)ids[at].size, ids[at].data);
    consumer->asked = count;
    transmit(consumer, request, (size_t)size);
}

static void on_answer(struct connection *consumer) {
    static struct bytes ids[COUNT_MAX];
    long count;
    receive(consumer);
    struct cursor cursor = {consumer->in, consumer->in + consumer->in_size};
    if (consumer->asked) {
        if (!take_number(&cursor, ':', &count)) return;
        if (count != consumer->asked) die("%ld of %ld entries were pending", count, consumer->asked);
        acked += (uint64_t)count;
        ask(consumer);
    } else {
        if (!take_entries(&cursor, ids, &count)) return;
        if (count == 0)
            starved++, ask(consumer);
        else
            acknowledge(consumer, ids, count);
    }
    drop(consumer, (size_t)(cursor.at - consumer->in));
}

/* --- the run ---------------------------------------------------------------------------------------------------------- */

static void turn(void) {
    struct pollfd events[CONSUMERS_MAX + 1];
    for (long number = 0; number < options.consumers; number++)
        events[number] = (struct pollfd){.fd = consumers[number].fd, .events = POLLIN};
    events[options.consumers] = (struct pollfd){.fd = publisher.fd, .events = POLLIN};
    if (poll(events, (nfds_t)options.consumers + 1, PATIENCE_MS) <= 0) die("nothing was answered for %d ms", PATIENCE_MS);
    now = now_ns();
    for (long number = 0; number < options.consumers; number++)
        if (events[number].revents) on_answer(&consumers[number]);
    if (events[options.consumers].revents) on_added();
}

static void run(void) {
    uint64_t entries = (uint64_t)options.entries, from_ns = 0, from_acked = 0;
    uint64_t start_ns = now = now_ns(), warm_ns = start_ns + (uint64_t)(options.warmup * 1e9);
    uint64_t end_ns = warm_ns + (uint64_t)(options.seconds * 1e9), late_ns = 0;
    for (long number = 0; number < options.consumers; number++) ask(&consumers[number]);
    while (options.feeds ? now < end_ns : acked < entries) {
        if (from_ns == 0 && (options.feeds ? now >= warm_ns : acked >= entries / 10)) from_ns = now, from_acked = acked;
        if (options.feeds) publish_to(acked + entries, (uint64_t)options.window);
        turn();
    }
    double seconds = (double)(now - from_ns) / 1e9;
    uint64_t measured = acked - from_acked;
    for (late_ns = now + PATIENCE_MS * 1000000ull; acked < sent; turn())
        if (now > late_ns) die("%lu of %lu entries were never acknowledged", sent - acked, sent);
    printf("{\"seconds\": %.6f, \"acked\": %lu, \"starved\": %lu}\n", seconds, measured, starved);
}

static void parse(const char *argument) {
    const char *value = strchr(argument, '=');
    if (value == NULL) die("not key=value: %s", argument);
    size_t size = (size_t)(value++ - argument);
#define KEY(name) (size == strlen(name) && memcmp(argument, name, size) == 0)
    if (KEY("publish_port")) options.publish_port = atoi(value);
    else if (KEY("consume_ports"))
        for (char *rest = (char *)value; *rest && options.port_count < PORTS_MAX; rest += *rest == ',')
            options.ports[options.port_count++] = (int)strtol(rest, &rest, 10);
    else if (KEY("consumers")) options.consumers = atol(value);
    else if (KEY("count")) options.count = atol(value);
    else if (KEY("entries")) options.entries = atol(value);
    else if (KEY("window")) options.window = atol(value);
    else if (KEY("bytes")) options.bytes = (size_t)atol(value);
    else if (KEY("feeds")) options.feeds = atoi(value) != 0;
    else if (KEY("warmup")) options.warmup = atof(value);
    else if (KEY("seconds")) options.seconds = atof(value);
    else if (KEY("stream")) options.stream = value;
    else die("no such option: %s", argument);
#undef KEY
}

int main(int count, char **arguments) {
    for (int at = 1; at < count; at++) parse(arguments[at]);
    if (options.port_count == 0 || options.publish_port == 0) die("publish_port and consume_ports are needed");
    if (options.consumers < 1 || options.consumers > CONSUMERS_MAX) die("1 to %d consumers", CONSUMERS_MAX);
    if (options.count < 1 || options.count > COUNT_MAX) die("count: 1 to %d", COUNT_MAX);
    if (options.window < 1 || options.window > FILL_WINDOW) die("window: 1 to %d", FILL_WINDOW);
    if (options.entries < 1 || strlen(options.stream) > 200) die("at least one entry, in a stream of at most 200 bytes' name");
    payload = make_payload(options.bytes);
    add = resp_add(options.stream, payload);
    adds = malloc(add.size * FILL_WINDOW);
    for (long at = 0; at < FILL_WINDOW; at++) memcpy(adds + (size_t)at * add.size, add.data, add.size);
    open_connection(&publisher, options.publish_port, 0);
    for (long number = 0; number < options.consumers; number++)
        open_connection(&consumers[number], options.ports[number % options.port_count], number);
    fill();
    run();
    return 0;
}
