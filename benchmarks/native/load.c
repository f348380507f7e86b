/* A load generator lighter than any server that it drives: one thread, epoll, raw bytes, no client library.
 *
 * Publishers work in a closed loop (`window` in flight on each connection; with subscribers, at most `window` messages
 * ahead of the slowest of them) or in an open loop (`rate`: message i is due at start + i/rate, and its latency counts
 * from then, whether or not it could be written: coordinated omission is in the figures). Subscribers count bytes, since
 * each delivery has one size; during the warm-up they compare every byte. A pinger sends PING each millisecond, open loop.
 *
 * Arguments are key=value, see `options`. Prints one JSON object. Exit code 1: the run is void, reason on stderr.
 * What was acknowledged or delivered is counted between the end of the warm-up and the end; then all is drained, and
 * what never came is reported (`unacked`, `undelivered`). Longer than 400 lines, as its parts share one state and one loop.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "samples.h"
#include "wire.h"

#define IN_BYTES (1 << 20)
#define OUT_BYTES_MAX (256u << 20)
#define DRAIN_NS 5000000000u
#define PORTS_MAX 16
#define TIMES_MAX (1u << 22) /* requests in flight on one connection, at most; a power of two */

enum role { PUBLISHER, SUBSCRIBER, PINGER };

struct ports {
    int numbers[PORTS_MAX];
    int count;
};

static struct {
    bool nats, stamps, adds; /* adds: XADD instead of PUBLISH */
    struct ports publish, subscribe, ping; /* connections are dealt over them in turn */
    long connections, window, subscribers, channels, messages;
    size_t bytes;
    double rate, warmup, seconds, ping_interval;
    const char *channel, *deliver; /* what publishers write to, and what subscribers subscribe to */
} options = {.connections = 1, .window = 1, .channels = 1, .bytes = 100, .seconds = 1, .ping_interval = 0.001, .channel = "bench"};

struct connection {
    int fd;
    enum role role;
    bool wants_write;
    char *out;
    size_t out_head, out_tail, out_room;
    char *in; /* what was read and is not a whole frame yet */
    size_t in_size;
    struct bytes request;
    uint64_t *times; /* when each request in flight was due */
    size_t times_room;
    uint64_t sent, answered;
    uint64_t received_bytes, delivered;
};

static struct connection *publishers, *subscribers, *pinger;
static struct bytes delivery; /* the bytes of one delivery, and where its stamp is */
static size_t delivery_stamp_at, request_stamp_from_end;
static struct samples ack_times, deliver_times, ping_times;
static uint64_t now, start_ns, warm_ns, end_ns;
static uint64_t sent_total, acked_total, delivered_bytes_total, delivered_total, errors_total;
static char first_error[200];
static char scratch[IN_BYTES];
static int poller;

static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static bool is_measured(uint64_t due) { return due >= warm_ns && due < end_ns; }

static void on_error(const char *text, size_t size) {
    if (errors_total++ == 0) snprintf(first_error, sizeof first_error, "%.*s", (int)(size < 190 ? size : 190), text);
}

/* --- connections ---------------------------------------------------------------------------------------------------- */

static void exchange(int fd, const char *request, const char *answer_end, char *answer, size_t room) {
    size_t size = 0, tail = strlen(answer_end);
    if (*request && send(fd, request, strlen(request), MSG_NOSIGNAL) != (ssize_t)strlen(request)) die("handshake: %m");
    while (size < tail || memcmp(answer + size - tail, answer_end, tail) != 0) {
        ssize_t got = size + 1 < room ? recv(fd, answer + size, room - size - 1, 0) : 0;
        if (got <= 0) die("handshake: no answer to %.20s; got %.*s", request, (int)size, answer);
        size += (size_t)got;
        answer[size] = 0;
        if (answer[0] == '-') die("handshake: refused: %s", answer);
    }
}

static void handshake(struct connection *connection, long number) {
    char request[1024] = "", expected[1024] = "", answer[8192];
    if (options.nats) {
        exchange(connection->fd, "", "\n", answer, sizeof answer);
        if (connection->role == SUBSCRIBER)
            snprintf(request, sizeof request, NATS_CONNECT "SUB %s 1\r\nPING\r\n", options.deliver);
        else
            snprintf(request, sizeof request, NATS_CONNECT "SUB _INBOX.load%ld 1\r\nPING\r\n", number);
        exchange(connection->fd, request, "PONG\r\n", answer, sizeof answer);
    } else if (connection->role == SUBSCRIBER) {
        resp_subscribe(options.deliver, request, expected, sizeof request);
        exchange(connection->fd, request, expected, answer, sizeof answer);
    } else {
        exchange(connection->fd, "*1\r\n$4\r\nPING\r\n", "+PONG\r\n", answer, sizeof answer);
    }
}

static void open_connection(struct connection *connection, enum role role, const struct ports *ports, long number) {
    if (ports->count == 0) die("no port given for role %d", role);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)ports->numbers[number % ports->count])};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct timeval patience = {10, 0};
    int one = 1;
    *connection = (struct connection){.fd = socket(AF_INET, SOCK_STREAM, 0), .role = role};
    setsockopt(connection->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(connection->fd, (struct sockaddr *)&address, sizeof address) != 0) die("connect: %m");
    handshake(connection, number);
    fcntl(connection->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    epoll_ctl(poller, EPOLL_CTL_ADD, connection->fd, &event);
    if (role == PINGER) connection->request = (struct bytes){"*1\r\n$4\r\nPING\r\n", 14};
}

static void open_connections(void) {
    struct bytes payload = make_payload(options.bytes);
    publishers = calloc((size_t)options.connections, sizeof *publishers);
    subscribers = calloc((size_t)options.subscribers + 1, sizeof *subscribers);
    delivery = resp_delivery(options.deliver, payload);
    delivery_stamp_at = delivery.size - options.bytes - 2;
    request_stamp_from_end = options.bytes + 2;
    for (long number = 0; number < options.subscribers; number++)
        open_connection(&subscribers[number], SUBSCRIBER, &options.subscribe, number);
    for (long number = 0; number < options.connections; number++) {
        char channel[256], inbox[64];
        open_connection(&publishers[number], PUBLISHER, &options.publish, number);
        if (options.channels > 1)
            snprintf(channel, sizeof channel, "%s%ld", options.channel, number % options.channels);
        else
            snprintf(channel, sizeof channel, "%s", options.channel);
        snprintf(inbox, sizeof inbox, "_INBOX.load%ld", number);
        publishers[number].request = options.nats   ? nats_publish(channel, inbox, payload)
                                     : options.adds ? resp_add(channel, payload)
                                                    : resp_publish(channel, payload);
    }
    if (options.ping.count) open_connection(pinger = calloc(1, sizeof *pinger), PINGER, &options.ping, 0);
}

/* --- sending -------------------------------------------------------------------------------------------------------- */

static void append(struct connection *connection, const char *data, size_t size) {
    if (connection->out_tail + size > connection->out_room) {
        size_t waiting = connection->out_tail - connection->out_head;
        memmove(connection->out, connection->out + connection->out_head, waiting);
        connection->out_head = 0, connection->out_tail = waiting;
        if (waiting + size > connection->out_room / 2) {
            connection->out_room = (waiting + size) * 2 + 65536;
            if (connection->out_room > OUT_BYTES_MAX) die("the server takes less than is offered: %zu bytes wait", waiting);
            connection->out = realloc(connection->out, connection->out_room);
        }
    }
    memcpy(connection->out + connection->out_tail, data, size);
    connection->out_tail += size;
}

static void flush(struct connection *connection) {
    while (connection->out_head < connection->out_tail) {
        ssize_t done = send(connection->fd, connection->out + connection->out_head, connection->out_tail - connection->out_head,
                            MSG_NOSIGNAL);
        if (done < 0 && errno == EAGAIN) break;
        if (done < 0) die("send: %m");
        connection->out_head += (size_t)done;
    }
    bool wants_write = connection->out_head < connection->out_tail;
    if (wants_write != connection->wants_write) {
        struct epoll_event event = {.events = wants_write ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = connection};
        epoll_ctl(poller, EPOLL_CTL_MOD, connection->fd, &event);
        connection->wants_write = wants_write;
    }
}

static void grow_times(struct connection *connection) {
    size_t room = connection->times_room ? connection->times_room * 2 : 1024;
    if (room > TIMES_MAX) die("%u requests wait for an answer: the server has stalled", TIMES_MAX);
    uint64_t *times = malloc(room * sizeof *times);
    for (uint64_t at = connection->answered; at < connection->sent; at++)
        times[at % room] = connection->times[at % connection->times_room];
    free(connection->times);
    connection->times = times;
    connection->times_room = room;
}

static void request(struct connection *connection, uint64_t due) {
    if (connection->sent - connection->answered == connection->times_room) grow_times(connection);
    connection->times[connection->sent++ % connection->times_room] = due;
    append(connection, connection->request.data, connection->request.size);
    if (connection->role != PUBLISHER) return;
    sent_total++;
    if (options.stamps) memcpy(connection->out + connection->out_tail - request_stamp_from_end, &due, sizeof due);
}

static uint64_t slowest_delivered(void) {
    uint64_t least = UINT64_MAX;
    for (long number = 0; number < options.subscribers; number++)
        if (subscribers[number].delivered < least) least = subscribers[number].delivered;
    return least;
}

static void fill_windows(void) {
    uint64_t window = (uint64_t)options.window;
    uint64_t sent_max = options.subscribers ? slowest_delivered() + window : UINT64_MAX;
    if (options.messages && (uint64_t)options.messages < sent_max) sent_max = (uint64_t)options.messages;
    for (long number = 0; number < options.connections; number++) {
        struct connection *publisher = &publishers[number];
        bool is_filled = false;
        while (publisher->sent - publisher->answered < window && sent_total < sent_max) {
            request(publisher, now);
            is_filled = true;
        }
        if (is_filled) flush(publisher);
    }
}

/* Sends what is due, and returns when the next is. */
static uint64_t send_due(double interval_ns, uint64_t *count, struct connection *connections, long connection_count) {
    uint64_t due;
    while ((due = start_ns + (uint64_t)((double)*count * interval_ns)) <= now)
        request(&connections[(*count)++ % (uint64_t)connection_count], due);
    for (long number = 0; number < connection_count; number++)
        if (!connections[number].wants_write) flush(&connections[number]);
    return due;
}

/* --- receiving ------------------------------------------------------------------------------------------------------ */

static void on_answer(struct connection *connection) {
    if (connection->answered == connection->sent) die("an answer to nothing");
    uint64_t due = connection->times[connection->answered++ % connection->times_room];
    if (connection->role == PUBLISHER) acked_total++;
    if (is_measured(due)) add_sample(connection->role == PUBLISHER ? &ack_times : &ping_times, due, now);
}

static void on_delivery(struct connection *connection, const char *payload) {
    uint64_t due;
    memcpy(&due, payload, sizeof due);
    connection->delivered++;
    delivered_total++;
    if (is_measured(due)) add_sample(&deliver_times, due, now);
}

static size_t take_nats(struct connection *connection, const char *data, size_t size) {
    size_t used = 0;
    for (;;) {
        struct frame frame = nats_frame(data + used, size - used);
        if (frame.kind == FRAME_PARTIAL) return used;
        if (frame.kind == FRAME_PING) append(connection, "PONG\r\n", 6), flush(connection);
        if (frame.kind == FRAME_ERROR) on_error(data + used, frame.size);
        if (frame.kind == FRAME_MESSAGE && connection->role == SUBSCRIBER) {
            if (frame.payload_size != options.bytes) die("a delivery of another size: %.*s", (int)frame.size, data + used);
            on_delivery(connection, frame.payload);
        } else if (frame.kind == FRAME_MESSAGE) {
            if (memmem(frame.payload, frame.payload_size, "\"seq\"", 5) == NULL) on_error(frame.payload, frame.payload_size);
            on_answer(connection);
        }
        used += frame.size;
    }
}

static size_t take_replies(struct connection *connection, const char *data, size_t size) {
    const char *at = data, *end;
    while ((end = memchr(at, '\n', (size_t)(data + size - at))) != NULL) {
        if (*at == '-') on_error(at, (size_t)(end - at - 1));
        if (*at != '$') on_answer(connection); /* XADD's id is on the line after its size */
        at = end + 1;
    }
    return (size_t)(at - data);
}

static size_t take_stamped(struct connection *connection, const char *data, size_t size) {
    size_t used = 0;
    for (; size - used >= delivery.size; used += delivery.size) {
        if (memcmp(data + used, delivery.data, delivery_stamp_at) != 0) die("not a delivery: %.80s", data + used);
        on_delivery(connection, data + used + delivery_stamp_at);
    }
    return used;
}

static void read_frames(struct connection *connection) {
    if (connection->in == NULL) connection->in = malloc(IN_BYTES);
    ssize_t got = recv(connection->fd, connection->in + connection->in_size, IN_BYTES - connection->in_size, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) die("the server closed a connection of role %d", connection->role);
    size_t size = connection->in_size + (size_t)got;
    size_t used = options.nats                        ? take_nats(connection, connection->in, size)
                  : connection->role != SUBSCRIBER ? take_replies(connection, connection->in, size)
                                                      : take_stamped(connection, connection->in, size);
    connection->in_size = size - used;
    if (connection->in_size == IN_BYTES) die("a frame without end");
    memmove(connection->in, connection->in + used, connection->in_size);
}

/* Counts by size. After the warm-up the kernel throws the bytes away unread (MSG_TRUNC), which halves the cost. */
static void read_counted(struct connection *connection) {
    bool is_compared = now < warm_ns;
    ssize_t got = recv(connection->fd, scratch, sizeof scratch, is_compared ? 0 : MSG_TRUNC);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) die("the server closed a subscriber: it was too slow, or the server failed");
    for (size_t at = 0; is_compared && at < (size_t)got;) {
        size_t from = (connection->received_bytes + at) % delivery.size;
        size_t size = delivery.size - from < (size_t)got - at ? delivery.size - from : (size_t)got - at;
        if (memcmp(scratch + at, delivery.data + from, size) != 0) die("not what was published: %.80s", scratch + at);
        at += size;
    }
    connection->received_bytes += (uint64_t)got;
    connection->delivered = connection->received_bytes / delivery.size;
    delivered_bytes_total += (uint64_t)got;
}

static void on_event(struct epoll_event *event) {
    struct connection *connection = event->data.ptr;
    if (event->events & EPOLLOUT) flush(connection);
    if (!(event->events & (EPOLLIN | EPOLLHUP | EPOLLERR))) return;
    if (connection->role == SUBSCRIBER && !options.stamps)
        read_counted(connection);
    else
        read_frames(connection);
}

/* --- the run -------------------------------------------------------------------------------------------------------- */

static bool is_drained(void) {
    if (acked_total < sent_total) return false;
    return options.subscribers == 0 || slowest_delivered() >= sent_total;
}

static void turn(uint64_t wake_ns) {
    struct epoll_event events[1024];
    uint64_t wait_ns = wake_ns > now ? wake_ns - now : 0;
    if (wait_ns < 50000) wait_ns = 50000; /* a generator that spins takes a core from the servers */
    struct timespec wait = {(time_t)(wait_ns / 1000000000u), (long)(wait_ns % 1000000000u)};
    int count = epoll_pwait2(poller, events, 1024, &wait, NULL);
    now = now_ns();
    for (int at = 0; at < count; at++) on_event(&events[at]);
}

static uint64_t run(uint64_t *acked, uint64_t *delivered_bytes) {
    uint64_t sent_open = 0, pings = 0, acked_before = 0, bytes_before = 0, measured_from = 0;
    now = start_ns = now_ns();
    warm_ns = start_ns + (uint64_t)(options.warmup * 1e9);
    end_ns = warm_ns + (uint64_t)(options.seconds * 1e9);
    while (now < end_ns && !(options.messages && acked_total >= (uint64_t)options.messages)) {
        uint64_t wake_ns = now + 100000000u;
        if (measured_from == 0 && now >= warm_ns)
            measured_from = now, acked_before = acked_total, bytes_before = delivered_bytes_total;
        if (pinger) wake_ns = send_due(options.ping_interval * 1e9, &pings, pinger, 1);
        if (options.rate > 0)
            wake_ns = send_due(1e9 / options.rate, &sent_open, publishers, options.connections);
        else
            fill_windows();
        turn(wake_ns);
    }
    uint64_t measured_ns = now - measured_from;
    *acked = acked_total - acked_before;
    *delivered_bytes = delivered_bytes_total - bytes_before;
    for (uint64_t until = now + DRAIN_NS; now < until && !is_drained();) turn(now + 20000000u);
    return measured_ns;
}

static struct ports parse_ports(const char *text) {
    struct ports ports = {{0}, 0};
    for (char *rest = (char *)text; *rest && ports.count < PORTS_MAX; rest += *rest == ',')
        ports.numbers[ports.count++] = (int)strtol(rest, &rest, 10);
    return ports;
}

static void parse(const char *argument) {
    const char *value = strchr(argument, '=');
    if (value == NULL) die("not key=value: %s", argument);
    size_t size = (size_t)(value++ - argument);
#define KEY(name) (size == strlen(name) && memcmp(argument, name, size) == 0)
    if (KEY("protocol")) options.nats = strcmp(value, "nats") == 0;
    else if (KEY("stamps")) options.stamps = atoi(value) != 0;
    else if (KEY("adds")) options.adds = atoi(value) != 0;
    else if (KEY("publish_ports")) options.publish = parse_ports(value);
    else if (KEY("subscribe_ports")) options.subscribe = parse_ports(value);
    else if (KEY("ping_ports")) options.ping = parse_ports(value);
    else if (KEY("connections")) options.connections = atol(value);
    else if (KEY("window")) options.window = atol(value);
    else if (KEY("subscribers")) options.subscribers = atol(value);
    else if (KEY("channels")) options.channels = atol(value);
    else if (KEY("messages")) options.messages = atol(value);
    else if (KEY("bytes")) options.bytes = (size_t)atol(value);
    else if (KEY("rate")) options.rate = atof(value);
    else if (KEY("warmup")) options.warmup = atof(value);
    else if (KEY("seconds")) options.seconds = atof(value);
    else if (KEY("channel")) options.channel = value;
    else if (KEY("deliver")) options.deliver = value;
    else die("no such option: %s", argument);
#undef KEY
}

int main(int count, char **arguments) {
    for (int at = 1; at < count; at++) parse(arguments[at]);
    if (options.deliver == NULL) options.deliver = options.channel;
    if (options.bytes < sizeof(uint64_t)) die("payloads have room for a stamp: at least 8 bytes");
    poller = epoll_create1(0);
    open_connections();
    uint64_t acked, delivered_bytes, lost_deliveries = 0;
    uint64_t measured_ns = run(&acked, &delivered_bytes);
    for (long number = 0; number < options.subscribers; number++)
        lost_deliveries += sent_total - subscribers[number].delivered;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    print_samples("ack_us", (printf("{"), &ack_times));
    print_samples("deliver_us", &deliver_times);
    print_samples("ping_us", &ping_times);
    printf("\"seconds\": %.6f, \"sent\": %lu, \"acked\": %lu, \"delivered\": %lu, ", (double)measured_ns / 1e9, sent_total, acked,
           options.stamps ? deliver_times.count : delivered_bytes / delivery.size);
    printf("\"unacked\": %lu, \"undelivered\": %lu, \"errors\": %lu, ", sent_total - acked_total, lost_deliveries, errors_total);
    printf("\"cpu_seconds\": %.3f}\n", (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                                          (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
    if (errors_total) fprintf(stderr, "%lu errors, the first: %s\n", errors_total, first_error);
    return errors_total != 0;
}
