/* Uses most of librabbitmq's API against a broker: one line of JSON for each step (see ../../programs.py). */

#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

enum { CHANNEL = 1, LINE = 1000, FRAME_MAX = 131072, WAIT_S = 10 };

typedef amqp_connection_state_t Connection;

static char user[100], password[100], vhost[100], host[100];
static int port, count;
static const char *prefix;
static jmp_buf given_up;
static char reason[LINE];
static Connection ours, other; /* new for each step; `other` publishes with confirms */

static _Noreturn void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
    longjmp(given_up, 1);
}

#define expect(condition) do { if (!(condition)) fail("line %d: not so: %s", __LINE__, #condition); } while (0)

static amqp_bytes_t bytes(const char *text) { return amqp_cstring_bytes(text); }

static int same(amqp_bytes_t got, const char *text) { return got.len == strlen(text) && memcmp(got.bytes, text, got.len) == 0; }

static const char *name(const char *word)
{
    static char names[16][200];
    char *named = names[++count % 16];
    snprintf(named, sizeof names[0], "%s.%s.%d", prefix, word, count);
    return named;
}

static struct timeval seconds(double number)
{
    struct timeval limit = {(time_t)number, (suseconds_t)((number - (time_t)number) * 1e6)};
    return limit;
}

static void nap(void) { nanosleep(&(struct timespec){0, 10000000}, NULL); }

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* replies ------------------------------------------------------------------------------------------- */

static void told(amqp_rpc_reply_t reply, int code, const char *text)
{
    if (reply.reply_type != AMQP_RESPONSE_SERVER_EXCEPTION) fail("not refused: %d %s", code, text);
    amqp_connection_close_t *hard = reply.reply.decoded;
    amqp_channel_close_t *soft = reply.reply.decoded;
    int is_hard = reply.reply.id == AMQP_CONNECTION_CLOSE_METHOD;
    int got = is_hard ? hard->reply_code : soft->reply_code;
    amqp_bytes_t why = is_hard ? hard->reply_text : soft->reply_text;
    if (got != code || why.len < strlen(text) || memcmp(why.bytes, text, strlen(text)) != 0)
        fail("got %d %.*s instead of %d %s", got, (int)why.len, (char *)why.bytes, code, text);
}

static void check(Connection connection, int line)
{
    amqp_rpc_reply_t reply = amqp_get_rpc_reply(connection);
    if (reply.reply_type == AMQP_RESPONSE_NORMAL) return;
    if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION) fail("line %d: %s", line, amqp_error_string2(reply.library_error));
    amqp_channel_close_t *close = reply.reply.decoded;
    fail("line %d: closed: %d %.*s", line, close->reply_code, (int)close->reply_text.len, (char *)close->reply_text.bytes);
}

#define ok(connection, call) ({ __typeof__(call) got_ = (call); check(connection, __LINE__); got_; })

#define refused(connection, call, code, ...) do { \
        char text_[LINE]; \
        snprintf(text_, sizeof text_, __VA_ARGS__); \
        (void)(call); \
        told(amqp_get_rpc_reply(connection), code, text_); \
    } while (0)

/* connections --------------------------------------------------------------------------------------- */

static amqp_rpc_reply_t log_in(Connection *connection, const char *to, const char *secret, int frame_max, int channel_max, int heartbeat)
{
    *connection = amqp_new_connection();
    struct timeval limit = seconds(WAIT_S);
    if (amqp_socket_open_noblock(amqp_tcp_socket_new(*connection), host, port, &limit)) fail("no connection");
    amqp_set_rpc_timeout(*connection, &limit);
    amqp_table_entry_t capability = {bytes("consumer_cancel_notify"), {AMQP_FIELD_KIND_BOOLEAN, {.boolean = 1}}};
    amqp_table_entry_t entries[] = {
        {bytes("connection_name"), {AMQP_FIELD_KIND_UTF8, {.bytes = bytes(prefix)}}},
        {bytes("capabilities"), {AMQP_FIELD_KIND_TABLE, {.table = {1, &capability}}}},
    };
    amqp_table_t properties = {2, entries};
    return amqp_login_with_properties(*connection, to, channel_max, frame_max, heartbeat, &properties, AMQP_SASL_METHOD_PLAIN, user, secret);
}

static Connection dial(int frame_max, int channel_max, int heartbeat)
{
    Connection connection;
    if (log_in(&connection, vhost, password, frame_max, channel_max, heartbeat).reply_type != AMQP_RESPONSE_NORMAL) fail("no login");
    ok(connection, amqp_channel_open(connection, CHANNEL));
    return connection;
}

static void hang_up(Connection connection)
{
    amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
    amqp_destroy_connection(connection);
}

/* Another channel, for what closes it. */
static int spare_channel(void)
{
    ok(ours, amqp_channel_open(ours, 2));
    return 2;
}

/* tables, queues, messages -------------------------------------------------------------------------- */

typedef struct { amqp_table_entry_t entries[12]; int used; } Table;

static Table *add(Table *table, const char *key, amqp_field_value_t value)
{
    table->entries[table->used++] = (amqp_table_entry_t){bytes(key), value};
    return table;
}

static amqp_field_value_t text(const char *value) { return (amqp_field_value_t){AMQP_FIELD_KIND_UTF8, {.bytes = bytes(value)}}; }

static amqp_field_value_t number(int value) { return (amqp_field_value_t){AMQP_FIELD_KIND_I32, {.i32 = value}}; }

static amqp_table_t whole(Table *table) { return (amqp_table_t){table->used, table->entries}; }

static amqp_field_value_t *field(amqp_table_t table, const char *key)
{
    for (int i = 0; i < table.num_entries; i++)
        if (same(table.entries[i].key, key)) return &table.entries[i].value;
    fail("no field %s", key);
}

/* A queue that both connections may use and that goes by itself in the end. */
static const char *declared(const char *named, Table *arguments)
{
    Table expiring = {0};
    if (arguments) expiring = *arguments;
    add(&expiring, "x-expires", number(60000));
    ok(ours, amqp_queue_declare(ours, CHANNEL, bytes(named), 0, 0, 0, 0, whole(&expiring)));
    return named;
}

static const char *queue(void) { return declared(name("q"), NULL); }

static const char *exchange(const char *type)
{
    const char *named = name("x");
    ok(ours, amqp_exchange_declare(ours, CHANNEL, bytes(named), bytes(type), 0, 0, 1, 0, amqp_empty_table));
    return named;
}

static void bind_queue(const char *to, const char *source, const char *key, Table *arguments)
{
    ok(ours, amqp_queue_bind(ours, CHANNEL, bytes(to), bytes(source), bytes(key), arguments ? whole(arguments) : amqp_empty_table));
}

static amqp_queue_declare_ok_t *counts(const char *named)
{
    return ok(other, amqp_queue_declare(other, CHANNEL, bytes(named), 1, 0, 0, 0, amqp_empty_table));
}

static amqp_frame_t frame_of(Connection connection, int method)
{
    amqp_frame_t frame;
    struct timeval limit = seconds(WAIT_S);
    int status = amqp_simple_wait_frame_noblock(connection, &frame, &limit);
    if (status != AMQP_STATUS_OK) fail("waiting for %x: %s", method, amqp_error_string2(status));
    if (frame.frame_type != AMQP_FRAME_METHOD || (int)frame.payload.method.id != method) fail("got %x, not %x", frame.payload.method.id, method);
    return frame;
}

static void publish(const char *to, const char *key, amqp_bytes_t body, amqp_basic_properties_t *properties)
{
    expect(amqp_basic_publish(other, CHANNEL, bytes(to), bytes(key), 0, 0, properties, body) == AMQP_STATUS_OK);
    frame_of(other, AMQP_BASIC_ACK_METHOD);
}

static void publish_text(const char *to, const char *key, const char *body) { publish(to, key, bytes(body), NULL); }

static void send_all(const char *to, const char *bodies) /* a message of each letter */
{
    for (char body[2] = {0}; (body[0] = *bodies); bodies++) publish_text("", to, body);
}

static amqp_message_t message; /* the one read last; what it holds stays until the step ends */
static amqp_basic_get_ok_t found;

static int try_get(Connection connection, const char *from, int no_ack)
{
    amqp_rpc_reply_t reply = amqp_basic_get(connection, CHANNEL, bytes(from), no_ack);
    if (reply.reply_type != AMQP_RESPONSE_NORMAL) fail("cannot get from %s", from);
    if (reply.reply.id == AMQP_BASIC_GET_EMPTY_METHOD) return 0;
    found = *(amqp_basic_get_ok_t *)reply.reply.decoded;
    reply = amqp_read_message(connection, CHANNEL, &message, 0);
    if (reply.reply_type != AMQP_RESPONSE_NORMAL) fail("cannot read a message from %s", from);
    return 1;
}

static uint64_t get(const char *from, int no_ack)
{
    for (double end = now() + WAIT_S; now() < end; nap())
        if (try_get(ours, from, no_ack)) return found.delivery_tag;
    fail("waited too long for a message in %s", from);
}

static const char *consume(const char *from, const char *tag, int no_ack, int exclusive, Table *arguments)
{
    ok(ours, amqp_basic_consume(ours, CHANNEL, bytes(from), bytes(tag), 0, no_ack, exclusive, arguments ? whole(arguments) : amqp_empty_table));
    return tag;
}

static amqp_envelope_t next(void)
{
    amqp_envelope_t envelope;
    struct timeval limit = seconds(WAIT_S);
    amqp_rpc_reply_t reply = amqp_consume_message(ours, &envelope, &limit, 0);
    if (reply.reply_type != AMQP_RESPONSE_NORMAL) fail("no delivery: %s", amqp_error_string2(reply.library_error));
    return envelope;
}

static int is_quiet(void)
{
    amqp_envelope_t envelope;
    struct timeval limit = seconds(0.05);
    return amqp_consume_message(ours, &envelope, &limit, 0).library_error == AMQP_STATUS_TIMEOUT;
}

/* Who of the queues gets the message? */
static void routed(const char *source, const char *key, Table *headers, const char *reached, ...)
{
    amqp_basic_properties_t properties = {0};
    if (headers) {
        properties._flags = AMQP_BASIC_HEADERS_FLAG;
        properties.headers = whole(headers);
    }
    publish(source, key, bytes("m"), &properties);
    char got[10] = {0}, letter = 'a';
    va_list queues;
    va_start(queues, reached);
    for (const char *each; (each = va_arg(queues, const char *)); letter++)
        if (try_get(ours, each, 1)) got[strlen(got)] = letter;
    va_end(queues);
    if (strcmp(got, reached) != 0) fail("%s reached %s instead of %s", key, got, reached);
}

/* steps --------------------------------------------------------------------------------------------- */

static void step_connect(void)
{
    Connection opened = dial(8192, 50, 7);
    expect(amqp_get_frame_max(opened) == 8192);
    expect(amqp_get_channel_max(opened) == 50);
    expect(amqp_get_heartbeat(opened) == 7);
    hang_up(opened);
}

static void step_server_properties(void)
{
    amqp_table_t capabilities = field(*amqp_get_server_properties(ours), "capabilities")->value.table;
    const char *words[] = {"publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify", "connection.blocked",
        "consumer_priorities", "authentication_failure_close", "per_consumer_qos", "direct_reply_to"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) expect(field(capabilities, words[i])->value.boolean);
}

static void step_idle(void)
{
    Connection quiet = dial(FRAME_MAX, 0, 1);
    amqp_frame_t frame;
    for (double end = now() + 3.5; now() < end;) {
        struct timeval limit = seconds(0.3); /* the library beats while it waits */
        expect(amqp_simple_wait_frame_noblock(quiet, &frame, &limit) == AMQP_STATUS_TIMEOUT);
    }
    ok(quiet, amqp_queue_declare(quiet, CHANNEL, amqp_empty_bytes, 0, 0, 1, 1, amqp_empty_table));
    hang_up(quiet);
}

static void step_wrong_password(void)
{
    Connection opened;
    told(log_in(&opened, vhost, "wrong", FRAME_MAX, 0, 0), 403, "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN");
    amqp_destroy_connection(opened);
}

static void step_unknown_vhost(void)
{
    Connection opened;
    told(log_in(&opened, "nowhere", password, FRAME_MAX, 0, 0), 530, "NOT_ALLOWED - vhost nowhere not found");
    amqp_destroy_connection(opened);
}

static void step_many_channels(void)
{
    Connection opened = dial(FRAME_MAX, 0, 0);
    for (int i = 2; i <= 100; i++) ok(opened, amqp_channel_open(opened, i));
    for (int i = 1; i <= 100; i++) ok(opened, amqp_queue_declare(opened, i, amqp_empty_bytes, 0, 0, 1, 1, amqp_empty_table));
    for (int i = 51; i <= 100; i++) amqp_channel_close(opened, i, AMQP_REPLY_SUCCESS);
    ok(opened, amqp_queue_declare(opened, 1, amqp_empty_bytes, 0, 0, 1, 1, amqp_empty_table));
    hang_up(opened);
}

static void step_declare_queue(void)
{
    const char *named = queue();
    expect(same(counts(declared(named, NULL))->queue, named));
    publish_text("", named, "one");
    expect(counts(named)->message_count == 1);
    amqp_queue_declare_ok_t *own = ok(ours, amqp_queue_declare(ours, CHANNEL, amqp_empty_bytes, 0, 0, 1, 1, amqp_empty_table));
    expect(memcmp(own->queue.bytes, "amq.gen-", 8) == 0);
}

static void step_queue_arguments(void)
{
    Table arguments = {0};
    add(&arguments, "x-message-ttl", number(60000));
    add(&arguments, "x-max-length", (amqp_field_value_t){AMQP_FIELD_KIND_I64, {.i64 = 10}});
    add(&arguments, "x-max-length-bytes", (amqp_field_value_t){AMQP_FIELD_KIND_I16, {.i16 = 1000}});
    add(&arguments, "x-overflow", text("reject-publish"));
    add(&arguments, "x-dead-letter-exchange", text(""));
    add(&arguments, "x-dead-letter-routing-key", text("k"));
    add(&arguments, "x-max-priority", (amqp_field_value_t){AMQP_FIELD_KIND_I8, {.i8 = 5}});
    add(&arguments, "x-single-active-consumer", (amqp_field_value_t){AMQP_FIELD_KIND_BOOLEAN, {.boolean = 1}});
    add(&arguments, "x-queue-mode", text("lazy"));
    declared(declared(name("q"), &arguments), &arguments);
}

static void step_unknown_queue(void)
{
    const char *none = name("none");
    refused(ours, amqp_queue_declare(ours, CHANNEL, bytes(none), 1, 0, 0, 0, amqp_empty_table), 404, "NOT_FOUND - no queue '%s' in vhost '/'", none);
    int again = spare_channel();
    ok(ours, amqp_queue_declare(ours, again, amqp_empty_bytes, 0, 0, 1, 1, amqp_empty_table));
}

static void step_other_properties(void)
{
    Table one = {0}, two = {0};
    const char *named = name("q");
    add(&one, "x-message-ttl", number(1000));
    add(add(&two, "x-message-ttl", number(2000)), "x-expires", number(60000));
    declared(named, &one);
    refused(ours, amqp_queue_declare(ours, CHANNEL, bytes(named), 0, 0, 0, 0, whole(&two)), 406,
        "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '%s' in vhost '/': received '2000' but current is '1000'", named);
}

static void step_locked_queue(void)
{
    const char *named = name("q");
    ok(ours, amqp_queue_declare(ours, CHANNEL, bytes(named), 0, 0, 1, 0, amqp_empty_table));
    refused(other, amqp_queue_purge(other, CHANNEL, bytes(named)), 405,
        "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '%s' in vhost '/'", named);
}

static void step_exchange_types(void)
{
    const char *types[] = {"direct", "fanout", "topic", "headers"};
    for (int i = 0; i < 4; i++) {
        Table note = {0};
        add(&note, "note", number(1));
        amqp_bytes_t named = bytes(name("x")), type = bytes(types[i]);
        for (int twice = 0; twice < 2; twice++) ok(ours, amqp_exchange_declare(ours, CHANNEL, named, type, 0, 1, 0, i == 1, whole(&note)));
        ok(ours, amqp_exchange_declare(ours, CHANNEL, named, type, 1, 0, 0, 0, amqp_empty_table));
        ok(ours, amqp_exchange_delete(ours, CHANNEL, named, 1));
    }
    const char *none = name("none");
    refused(ours, amqp_exchange_declare(ours, CHANNEL, bytes(none), bytes("direct"), 1, 0, 0, 0, amqp_empty_table), 404,
        "NOT_FOUND - no exchange '%s' in vhost '/'", none);
}

static void step_route_direct(void)
{
    const char *source = exchange("direct"), *a = queue(), *b = queue();
    bind_queue(a, source, "red", NULL);
    bind_queue(b, source, "red", NULL);
    bind_queue(b, source, "blue", NULL);
    routed(source, "red", NULL, "ab", a, b, NULL);
    routed(source, "blue", NULL, "b", a, b, NULL);
    ok(ours, amqp_queue_unbind(ours, CHANNEL, bytes(b), bytes(source), bytes("red"), amqp_empty_table));
    routed(source, "red", NULL, "a", a, b, NULL);
}

static void step_route_fanout(void)
{
    const char *source = exchange("fanout"), *a = queue(), *b = queue();
    bind_queue(a, source, "", NULL);
    bind_queue(b, source, "ignored", NULL);
    routed(source, "any", NULL, "ab", a, b, NULL);
}

static void step_route_topic(void)
{
    const char *source = exchange("topic"), *a = queue(), *b = queue(), *c = queue();
    bind_queue(a, source, "*.orange.*", NULL);
    bind_queue(b, source, "lazy.#", NULL);
    bind_queue(c, source, "#", NULL);
    routed(source, "quick.orange.fox", NULL, "ac", a, b, c, NULL);
    routed(source, "lazy.orange.elephant", NULL, "abc", a, b, c, NULL);
    routed(source, "lazy", NULL, "bc", a, b, c, NULL);
    routed(source, "", NULL, "c", a, b, c, NULL);
}

static void step_route_headers(void)
{
    const char *source = exchange("headers"), *a = queue(), *b = queue();
    Table all = {0}, any = {0}, both = {0}, red = {0}, none = {0};
    bind_queue(a, source, "", add(add(add(&all, "x-match", text("all")), "size", number(1)), "colour", text("red")));
    bind_queue(b, source, "", add(add(add(&any, "x-match", text("any")), "size", number(1)), "colour", text("red")));
    routed(source, "", add(add(&both, "size", number(1)), "colour", text("red")), "ab", a, b, NULL);
    routed(source, "", add(add(&red, "size", number(2)), "colour", text("red")), "b", a, b, NULL);
    routed(source, "", add(&none, "size", number(2)), "", a, b, NULL);
}

static void step_exchange_to_exchange(void)
{
    const char *source = exchange("topic"), *target = exchange("fanout"), *a = queue();
    Table note = {0};
    add(&note, "note", text("kept"));
    bind_queue(a, target, "", NULL);
    ok(ours, amqp_exchange_bind(ours, CHANNEL, bytes(target), bytes(source), bytes("kept"), amqp_empty_table)); /* keeps it from being deleted */
    ok(ours, amqp_exchange_bind(ours, CHANNEL, bytes(target), bytes(source), bytes("x.*"), whole(&note)));
    routed(source, "x.1", NULL, "a", a, NULL);
    ok(ours, amqp_exchange_unbind(ours, CHANNEL, bytes(target), bytes(source), bytes("x.*"), whole(&note)));
    routed(source, "x.1", NULL, "", a, NULL);
}

static void step_alternate_exchange(void)
{
    const char *spare = exchange("fanout"), *source = name("x"), *a = queue();
    Table arguments = {0};
    add(&arguments, "alternate-exchange", text(spare));
    ok(ours, amqp_exchange_declare(ours, CHANNEL, bytes(source), bytes("direct"), 0, 0, 0, 0, whole(&arguments)));
    bind_queue(a, spare, "", NULL);
    routed(source, "unrouted", NULL, "a", a, NULL);
    ok(ours, amqp_exchange_delete(ours, CHANNEL, bytes(source), 0));
}

static void step_default_exchange(void)
{
    const char *a = queue();
    routed("", a, NULL, "a", a, NULL);
    refused(ours, amqp_queue_bind(ours, CHANNEL, bytes(a), bytes(""), bytes("k"), amqp_empty_table), 403,
        "ACCESS_REFUSED - operation not permitted on the default exchange");
}

static void step_purge_delete(void)
{
    const char *a = queue();
    send_all(a, "12345");
    expect(ok(ours, amqp_queue_purge(ours, CHANNEL, bytes(a)))->message_count == 5);
    send_all(a, "1");
    expect(ok(ours, amqp_queue_delete(ours, CHANNEL, bytes(a), 0, 0))->message_count == 1);
    expect(ok(ours, amqp_queue_delete(ours, CHANNEL, bytes(a), 0, 0))->message_count == 0);
}

static void step_delete_conditions(void)
{
    const char *a = queue();
    send_all(a, "m");
    int channel = spare_channel();
    refused(ours, amqp_queue_delete(ours, channel, bytes(a), 0, 1), 406, "PRECONDITION_FAILED - queue '%s' in vhost '/' not empty", a);
    consume(a, "mine", 0, 0, NULL);
    refused(other, amqp_queue_delete(other, CHANNEL, bytes(a), 1, 0), 406, "PRECONDITION_FAILED - queue '%s' in vhost '/' in use", a);
}

static void step_properties(void)
{
    const char *a = queue();
    Table headers = {0};
    add(&headers, "h", number(1));
    amqp_basic_properties_t sent = {
        ._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_CONTENT_ENCODING_FLAG | AMQP_BASIC_HEADERS_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG
            | AMQP_BASIC_PRIORITY_FLAG | AMQP_BASIC_CORRELATION_ID_FLAG | AMQP_BASIC_REPLY_TO_FLAG | AMQP_BASIC_EXPIRATION_FLAG
            | AMQP_BASIC_MESSAGE_ID_FLAG | AMQP_BASIC_TIMESTAMP_FLAG | AMQP_BASIC_TYPE_FLAG | AMQP_BASIC_USER_ID_FLAG
            | AMQP_BASIC_APP_ID_FLAG | AMQP_BASIC_CLUSTER_ID_FLAG,
        .content_type = bytes("application/json"), .content_encoding = bytes("utf-8"), .headers = whole(&headers), .delivery_mode = 2,
        .priority = 7, .correlation_id = bytes("c-1"), .reply_to = bytes("r"), .expiration = bytes("60000"), .message_id = bytes("m-1"),
        .timestamp = 1700000000, .type = bytes("t"), .user_id = bytes(user), .app_id = bytes("app"), .cluster_id = bytes("cluster"),
    };
    publish("", a, bytes("{}"), &sent);
    get(a, 1);
    amqp_basic_properties_t *got = &message.properties;
    expect(got->_flags == sent._flags);
    expect(same(got->content_type, "application/json") && same(got->content_encoding, "utf-8") && same(got->correlation_id, "c-1"));
    expect(same(got->reply_to, "r") && same(got->expiration, "60000") && same(got->message_id, "m-1") && same(got->type, "t"));
    expect(same(got->user_id, user) && same(got->app_id, "app") && same(got->cluster_id, "cluster"));
    expect(got->delivery_mode == 2 && got->priority == 7 && got->timestamp == 1700000000);
    expect(field(got->headers, "h")->value.i32 == 1);
    expect(same(message.body, "{}") && same(found.exchange, "") && same(found.routing_key, a) && !found.redelivered);
}

static void step_headers(void)
{
    const char *a = queue();
    Table headers = {0}, inner = {0};
    amqp_field_value_t list[2] = {number(1), text("two")};
    add(&inner, "deep", text("er"));
    add(&headers, "text", text("gr\xc3\xbc\xc3\x9f"));
    add(&headers, "yes", (amqp_field_value_t){AMQP_FIELD_KIND_BOOLEAN, {.boolean = 1}});
    add(&headers, "byte", (amqp_field_value_t){AMQP_FIELD_KIND_I8, {.i8 = -100}});
    add(&headers, "short", (amqp_field_value_t){AMQP_FIELD_KIND_I16, {.i16 = -30000}});
    add(&headers, "int", number(2000000000));
    add(&headers, "long", (amqp_field_value_t){AMQP_FIELD_KIND_I64, {.i64 = (int64_t)1 << 62}});
    add(&headers, "double", (amqp_field_value_t){AMQP_FIELD_KIND_F64, {.f64 = 1.1}});
    add(&headers, "decimal", (amqp_field_value_t){AMQP_FIELD_KIND_DECIMAL, {.decimal = {2, 314}}});
    add(&headers, "time", (amqp_field_value_t){AMQP_FIELD_KIND_TIMESTAMP, {.u64 = 1700000000}});
    add(&headers, "nothing", (amqp_field_value_t){AMQP_FIELD_KIND_VOID, {0}});
    add(&headers, "list", (amqp_field_value_t){AMQP_FIELD_KIND_ARRAY, {.array = {2, list}}});
    add(&headers, "table", (amqp_field_value_t){AMQP_FIELD_KIND_TABLE, {.table = whole(&inner)}});
    amqp_basic_properties_t properties = {._flags = AMQP_BASIC_HEADERS_FLAG, .headers = whole(&headers)};
    publish("", a, bytes(""), &properties);
    get(a, 1);
    amqp_table_t got = message.properties.headers;
    expect(got.num_entries == headers.used);
    for (int i = 0; i < headers.used; i++) {
        expect(got.entries[i].key.len == headers.entries[i].key.len);
        expect(got.entries[i].value.kind == headers.entries[i].value.kind);
    }
    expect(same(field(got, "text")->value.bytes, "gr\xc3\xbc\xc3\x9f") && field(got, "yes")->value.boolean == 1);
    expect(field(got, "byte")->value.i8 == -100 && field(got, "short")->value.i16 == -30000 && field(got, "int")->value.i32 == 2000000000);
    expect(field(got, "long")->value.i64 == (int64_t)1 << 62 && field(got, "double")->value.f64 == 1.1);
    expect(field(got, "decimal")->value.decimal.decimals == 2 && field(got, "decimal")->value.decimal.value == 314);
    expect(field(got, "time")->value.u64 == 1700000000);
    expect(field(got, "list")->value.array.num_entries == 2 && same(field(got, "list")->value.array.entries[1].value.bytes, "two"));
    expect(same(field(field(got, "table")->value.table, "deep")->value.bytes, "er"));
}

static void step_large(void)
{
    const char *a = queue();
    amqp_bytes_t content = amqp_bytes_malloc(1 << 20);
    for (size_t i = 0; i < content.len; i++) ((char *)content.bytes)[i] = (char)(i * 7 + i / 251);
    publish("", a, content, NULL);
    get(a, 1);
    expect(message.body.len == content.len && memcmp(message.body.bytes, content.bytes, content.len) == 0);
    Connection small = dial(4096, 0, 0);
    expect(amqp_get_frame_max(small) == 4096);
    expect(amqp_basic_publish(small, CHANNEL, bytes(""), bytes(a), 0, 0, NULL, content) == AMQP_STATUS_OK);
    for (double end = now() + WAIT_S; !try_get(small, a, 1); nap()) expect(now() < end);
    expect(message.body.len == content.len && memcmp(message.body.bytes, content.bytes, content.len) == 0);
    amqp_bytes_free(content);
    hang_up(small);
}

static void step_empty(void)
{
    const char *a = queue();
    publish_text("", a, "");
    get(a, 1);
    expect(message.body.len == 0);
}

static amqp_basic_return_t *returned(Connection connection)
{
    amqp_basic_return_t *back = frame_of(connection, AMQP_BASIC_RETURN_METHOD).payload.method.decoded;
    if (amqp_read_message(connection, CHANNEL, &message, 0).reply_type != AMQP_RESPONSE_NORMAL) fail("no message came back");
    return back;
}

static void step_mandatory(void)
{
    amqp_basic_properties_t properties = {._flags = AMQP_BASIC_MESSAGE_ID_FLAG, .message_id = bytes("m")};
    amqp_basic_publish(ours, CHANNEL, bytes(""), bytes(name("none")), 1, 0, &properties, bytes("lost"));
    amqp_basic_return_t *back = returned(ours);
    expect(back->reply_code == 312 && same(back->reply_text, "NO_ROUTE"));
    expect(same(message.properties.message_id, "m") && same(message.body, "lost"));
}

static void step_confirm(void)
{
    const char *a = queue();
    amqp_basic_properties_t persistent = {._flags = AMQP_BASIC_DELIVERY_MODE_FLAG, .delivery_mode = AMQP_DELIVERY_PERSISTENT};
    amqp_basic_publish(other, CHANNEL, bytes(""), bytes(a), 0, 0, &persistent, bytes("m"));
    expect(((amqp_basic_ack_t *)frame_of(other, AMQP_BASIC_ACK_METHOD).payload.method.decoded)->delivery_tag == 1);
    expect(counts(a)->message_count == 1);
    amqp_basic_publish(other, CHANNEL, bytes(""), bytes(name("none")), 1, 0, NULL, bytes("m"));
    returned(other);
    expect(((amqp_basic_ack_t *)frame_of(other, AMQP_BASIC_ACK_METHOD).payload.method.decoded)->delivery_tag == 2);
}

static void step_confirm_many(void)
{
    const char *a = queue();
    char seen[1001] = {0};
    for (int i = 0; i < 1000; i++) amqp_basic_publish(other, CHANNEL, bytes(""), bytes(a), 0, 0, NULL, bytes("m"));
    for (int open = 1000; open > 0;) {
        amqp_basic_ack_t *ack = frame_of(other, AMQP_BASIC_ACK_METHOD).payload.method.decoded;
        for (uint64_t tag = ack->multiple ? 1 : ack->delivery_tag; tag <= ack->delivery_tag; tag++)
            if (!seen[tag]) seen[tag] = 1, open--;
    }
    expect(counts(a)->message_count == 1000);
}

static void step_confirm_nack(void)
{
    Table arguments = {0};
    const char *a = declared(name("q"), add(add(&arguments, "x-max-length", number(1)), "x-overflow", text("reject-publish")));
    publish_text("", a, "fits");
    amqp_basic_publish(other, CHANNEL, bytes(""), bytes(a), 0, 0, NULL, bytes("does not"));
    expect(((amqp_basic_nack_t *)frame_of(other, AMQP_BASIC_NACK_METHOD).payload.method.decoded)->delivery_tag == 2);
}

static void step_get(void)
{
    const char *a = queue();
    expect(!try_get(ours, a, 0));
    send_all(a, "12");
    uint64_t tag = get(a, 0);
    expect(same(message.body, "1") && found.message_count == 1);
    amqp_basic_ack(ours, CHANNEL, tag, 0);
    get(a, 1);
    expect(same(message.body, "2") && found.message_count == 0);
}

static void step_consume_ack(void)
{
    const char *a = queue();
    consume(a, "mine", 0, 0, NULL);
    send_all(a, "12345");
    for (uint64_t tag = 1; tag <= 5; tag++) {
        amqp_envelope_t envelope = next();
        expect(envelope.delivery_tag == tag && same(envelope.consumer_tag, "mine"));
        expect(envelope.message.body.len == 1 && *(char *)envelope.message.body.bytes == (char)('0' + tag));
        amqp_destroy_envelope(&envelope);
    }
    amqp_basic_ack(ours, CHANNEL, 3, 1);
    amqp_basic_ack(ours, CHANNEL, 5, 0);
    amqp_channel_close(ours, CHANNEL, AMQP_REPLY_SUCCESS);
    expect(try_get(other, a, 0));
    expect(same(message.body, "4") && found.redelivered && found.message_count == 0);
}

static void step_consume_no_ack(void)
{
    const char *a = queue();
    consume(a, "mine", 1, 0, NULL);
    send_all(a, "123");
    for (int i = 0; i < 3; i++) next();
    amqp_channel_close(ours, CHANNEL, AMQP_REPLY_SUCCESS);
    expect(!try_get(other, a, 0));
}

static void step_nack(void)
{
    const char *a = queue();
    send_all(a, "123");
    get(a, 0);
    uint64_t second = get(a, 0), third = get(a, 0);
    amqp_basic_nack(ours, CHANNEL, second, 1, 1);
    amqp_basic_nack(ours, CHANNEL, third, 0, 0);
    get(a, 1);
    expect(same(message.body, "1") && found.redelivered);
    get(a, 1);
    expect(same(message.body, "2") && found.redelivered);
    expect(!try_get(ours, a, 1));
}

static void step_reject(void)
{
    const char *a = queue();
    send_all(a, "m");
    amqp_basic_reject(ours, CHANNEL, get(a, 0), 1);
    uint64_t again = get(a, 0);
    expect(found.redelivered);
    amqp_basic_reject(ours, CHANNEL, again, 0);
    expect(!try_get(ours, a, 1));
}

static void step_recover(void)
{
    const char *a = queue();
    send_all(a, "m");
    consume(a, "mine", 0, 0, NULL);
    next();
    ok(ours, amqp_basic_recover(ours, CHANNEL, 1));
    expect(next().redelivered);
}

static void step_prefetch(void)
{
    const char *a = queue();
    send_all(a, "12345");
    ok(ours, amqp_basic_qos(ours, CHANNEL, 0, 2, 0));
    consume(a, "mine", 0, 0, NULL);
    next();
    uint64_t second = next().delivery_tag;
    expect(counts(a)->message_count == 3);
    expect(is_quiet());
    amqp_basic_ack(ours, CHANNEL, second, 1);
    expect(same(next().message.body, "3"));
    ok(ours, amqp_basic_qos(ours, CHANNEL, 0, 3, 1));
}

static void step_cancel(void)
{
    const char *a = queue();
    consume(a, "mine", 0, 0, NULL);
    expect(counts(a)->consumer_count == 1);
    expect(same(ok(ours, amqp_basic_cancel(ours, CHANNEL, bytes("mine")))->consumer_tag, "mine"));
    send_all(a, "m");
    expect(counts(a)->consumer_count == 0 && counts(a)->message_count == 1);
}

static void step_server_cancel(void)
{
    const char *a = queue();
    consume(a, "mine", 0, 0, NULL);
    ok(other, amqp_queue_delete(other, CHANNEL, bytes(a), 0, 0));
    amqp_basic_cancel_t *cancel = frame_of(ours, AMQP_BASIC_CANCEL_METHOD).payload.method.decoded;
    expect(same(cancel->consumer_tag, "mine"));
    queue();
}

static void step_exclusive_consumer(void)
{
    const char *a = queue();
    consume(a, "mine", 0, 1, NULL);
    refused(other, amqp_basic_consume(other, CHANNEL, bytes(a), bytes(""), 0, 0, 0, amqp_empty_table), 403,
        "ACCESS_REFUSED - queue '%s' in vhost '/' in exclusive use", a);
}

static void step_consumer_priority(void)
{
    const char *a = queue();
    Table arguments = {0};
    consume(a, "low", 1, 0, NULL);
    consume(a, "high", 1, 0, add(&arguments, "x-priority", number(10)));
    send_all(a, "123");
    for (int i = 0; i < 3; i++) expect(same(next().consumer_tag, "high"));
}

static void closed_channel(int code, const char *expected)
{
    amqp_channel_close_t *close = frame_of(ours, AMQP_CHANNEL_CLOSE_METHOD).payload.method.decoded;
    if (close->reply_code != code || !same(close->reply_text, expected))
        fail("got %d %.*s instead of %d %s", close->reply_code, (int)close->reply_text.len, (char *)close->reply_text.bytes, code, expected);
    amqp_channel_close_ok_t reply = {0};
    amqp_send_method(ours, CHANNEL, AMQP_CHANNEL_CLOSE_OK_METHOD, &reply);
    ok(ours, amqp_channel_open(ours, CHANNEL));
    queue();
}

static void step_unknown_delivery_tag(void)
{
    amqp_basic_ack(ours, CHANNEL, 99, 0);
    closed_channel(406, "PRECONDITION_FAILED - unknown delivery tag 99");
}

static void step_closed_channel(void)
{
    const char *none = name("none");
    char expected[LINE];
    snprintf(expected, sizeof expected, "NOT_FOUND - no exchange '%s' in vhost '/'", none);
    amqp_basic_publish(ours, CHANNEL, bytes(none), bytes("k"), 0, 0, NULL, bytes("m"));
    closed_channel(404, expected);
}

static void step_closed_connection(void)
{
    Connection opened = dial(FRAME_MAX, 0, 0);
    amqp_basic_publish(opened, CHANNEL, bytes(""), bytes("k"), 0, 1, NULL, bytes("m"));
    amqp_connection_close_t *close = frame_of(opened, AMQP_CONNECTION_CLOSE_METHOD).payload.method.decoded;
    expect(close->reply_code == 540 && same(close->reply_text, "NOT_IMPLEMENTED - immediate=true"));
    amqp_destroy_connection(opened);
    hang_up(dial(FRAME_MAX, 0, 0));
}

static amqp_table_t death(int index)
{
    amqp_array_t deaths = field(message.properties.headers, "x-death")->value.array;
    expect(index < deaths.num_entries);
    return deaths.entries[index].value.table;
}

static Table *to_dead(Table *arguments, const char *dead)
{
    return add(add(arguments, "x-dead-letter-exchange", text("")), "x-dead-letter-routing-key", text(dead));
}

static void step_message_ttl(void)
{
    const char *dead = queue();
    Table arguments = {0}, headers = {0};
    const char *a = declared(name("q"), to_dead(&arguments, dead));
    add(&headers, "kept", text("yes"));
    amqp_basic_properties_t properties = {
        ._flags = AMQP_BASIC_EXPIRATION_FLAG | AMQP_BASIC_HEADERS_FLAG, .expiration = bytes("20"), .headers = whole(&headers)};
    publish("", a, bytes("m"), &properties);
    get(dead, 1);
    amqp_table_t first = death(0);
    expect(same(field(first, "queue")->value.bytes, a) && same(field(first, "exchange")->value.bytes, ""));
    expect(same(field(first, "reason")->value.bytes, "expired") && same(field(first, "original-expiration")->value.bytes, "20"));
    expect(field(first, "count")->kind == AMQP_FIELD_KIND_I64 && field(first, "count")->value.i64 == 1);
    expect(field(first, "time")->kind == AMQP_FIELD_KIND_TIMESTAMP);
    expect(same(field(first, "routing-keys")->value.array.entries[0].value.bytes, a));
    expect(same(field(message.properties.headers, "kept")->value.bytes, "yes"));
    expect(same(field(message.properties.headers, "x-first-death-queue")->value.bytes, a));
    expect(!(message.properties._flags & AMQP_BASIC_EXPIRATION_FLAG));
}

static void step_dead_letter_rejected(void)
{
    const char *dlx = exchange("direct"), *a = name("q");
    Table back = {0}, arguments = {0};
    const char *dead = declared(name("q"), to_dead(&back, a));
    bind_queue(dead, dlx, "dead", NULL);
    declared(a, add(add(&arguments, "x-dead-letter-exchange", text(dlx)), "x-dead-letter-routing-key", text("dead")));
    send_all(a, "m");
    const char *circle[] = {a, dead, a};
    for (int i = 0; i < 3; i++) amqp_basic_reject(ours, CHANNEL, get(circle[i], 0), 0);
    get(dead, 1);
    expect(same(found.exchange, dlx) && same(found.routing_key, "dead"));
    expect(same(field(death(0), "queue")->value.bytes, a) && field(death(0), "count")->value.i64 == 2);
    expect(same(field(death(1), "queue")->value.bytes, dead) && field(death(1), "count")->value.i64 == 1);
    expect(same(field(death(0), "reason")->value.bytes, "rejected"));
}

static void step_max_length(void)
{
    const char *dead = queue();
    Table arguments = {0};
    const char *a = declared(name("q"), add(to_dead(&arguments, dead), "x-max-length", number(2)));
    send_all(a, "123");
    get(dead, 1);
    expect(same(message.body, "1") && same(field(death(0), "reason")->value.bytes, "maxlen"));
    get(a, 1);
    expect(same(message.body, "2"));
}

static void step_priority(void)
{
    Table arguments = {0};
    const char *a = declared(name("q"), add(&arguments, "x-max-priority", number(5)));
    for (const char *level = "01539"; *level; level++) {
        amqp_basic_properties_t properties = {._flags = AMQP_BASIC_PRIORITY_FLAG, .priority = (uint8_t)(*level - '0')};
        publish("", a, (amqp_bytes_t){1, (void *)level}, &properties);
    }
    for (const char *level = "59310"; *level; level++) {
        get(a, 1);
        if (*(char *)message.body.bytes != *level) fail("got %c instead of %c", *(char *)message.body.bytes, *level);
    }
}

static void transaction(int commit)
{
    const char *a = queue(), *b = queue();
    send_all(b, "t");
    uint64_t taken = get(b, 0);
    ok(ours, amqp_tx_select(ours, CHANNEL));
    amqp_basic_publish(ours, CHANNEL, bytes(""), bytes(a), 0, 0, NULL, bytes("1"));
    amqp_basic_ack(ours, CHANNEL, taken, 0);
    expect(!try_get(other, a, 1));
    if (commit) {
        ok(ours, amqp_tx_commit(ours, CHANNEL));
        expect(try_get(other, a, 1) && same(message.body, "1"));
        expect(ok(ours, amqp_queue_delete(ours, CHANNEL, bytes(b), 0, 0))->message_count == 0);
        return;
    }
    ok(ours, amqp_tx_rollback(ours, CHANNEL));
    expect(!try_get(other, a, 1));
    amqp_basic_nack(ours, CHANNEL, taken, 0, 1);
    ok(ours, amqp_tx_commit(ours, CHANNEL));
    expect(try_get(other, b, 1) && same(message.body, "t"));
    refused(ours, amqp_confirm_select(ours, CHANNEL), 406, "PRECONDITION_FAILED - cannot switch from tx to confirm mode");
}

static void step_tx_commit(void) { transaction(1); }

static void step_tx_rollback(void) { transaction(0); }

/* Asks from one connection and answers from the other. */
static void call(const char *requests, const char *reply_to, const char *id)
{
    amqp_basic_properties_t properties = {
        ._flags = AMQP_BASIC_REPLY_TO_FLAG | AMQP_BASIC_CORRELATION_ID_FLAG, .reply_to = bytes(reply_to), .correlation_id = bytes(id)};
    amqp_basic_publish(ours, CHANNEL, bytes(""), bytes(requests), 0, 0, &properties, bytes("hey"));
    for (double end = now() + WAIT_S; !try_get(other, requests, 1); nap()) expect(now() < end);
    amqp_basic_properties_t answer = {._flags = AMQP_BASIC_CORRELATION_ID_FLAG, .correlation_id = message.properties.correlation_id};
    amqp_basic_publish(other, CHANNEL, bytes(""), message.properties.reply_to, 0, 0, &answer, bytes("hey!"));
    frame_of(other, AMQP_BASIC_ACK_METHOD);
    amqp_envelope_t reply = next();
    expect(same(reply.message.body, "hey!") && same(reply.message.properties.correlation_id, id));
}

static void step_direct_reply_to(void)
{
    const char *requests = queue();
    consume("amq.rabbitmq.reply-to", "replies", 1, 0, NULL);
    call(requests, "amq.rabbitmq.reply-to", "42");
}

static void step_rpc_queue(void)
{
    const char *requests = queue(), *answered = queue();
    consume(answered, "replies", 1, 0, NULL);
    for (int i = 0; i < 10; i++) call(requests, answered, (char[]){(char)('0' + i), 0});
}

/* all of it ----------------------------------------------------------------------------------------- */

typedef struct { const char *name; void (*run)(void); const char *absent; } Step;

static const Step steps[] = {
    {"connect", step_connect, NULL}, {"server-properties", step_server_properties, NULL}, {"idle", step_idle, NULL},
    {"wrong-password", step_wrong_password, NULL}, {"unknown-vhost", step_unknown_vhost, NULL}, {"many-channels", step_many_channels, NULL},
    {"blocked-listener", NULL, "no listeners: connection.blocked is read as any other frame"},
    {"update-secret", NULL, "no update-secret"}, {"declare-queue", step_declare_queue, NULL},
    {"queue-arguments", step_queue_arguments, NULL}, {"unknown-queue", step_unknown_queue, NULL},
    {"other-properties", step_other_properties, NULL}, {"locked-queue", step_locked_queue, NULL},
    {"exchange-types", step_exchange_types, NULL}, {"route-direct", step_route_direct, NULL}, {"route-fanout", step_route_fanout, NULL},
    {"route-topic", step_route_topic, NULL}, {"route-headers", step_route_headers, NULL},
    {"exchange-to-exchange", step_exchange_to_exchange, NULL}, {"alternate-exchange", step_alternate_exchange, NULL},
    {"default-exchange", step_default_exchange, NULL}, {"purge-delete", step_purge_delete, NULL},
    {"delete-conditions", step_delete_conditions, NULL}, {"properties", step_properties, NULL}, {"headers", step_headers, NULL},
    {"large", step_large, NULL}, {"empty", step_empty, NULL}, {"mandatory", step_mandatory, NULL}, {"confirm", step_confirm, NULL},
    {"confirm-many", step_confirm_many, NULL}, {"confirm-nack", step_confirm_nack, NULL}, {"get", step_get, NULL},
    {"consume-ack", step_consume_ack, NULL}, {"consume-no-ack", step_consume_no_ack, NULL}, {"nack", step_nack, NULL},
    {"reject", step_reject, NULL}, {"recover", step_recover, NULL}, {"prefetch", step_prefetch, NULL}, {"cancel", step_cancel, NULL},
    {"server-cancel", step_server_cancel, NULL}, {"exclusive-consumer", step_exclusive_consumer, NULL},
    {"consumer-priority", step_consumer_priority, NULL}, {"unknown-delivery-tag", step_unknown_delivery_tag, NULL},
    {"message-ttl", step_message_ttl, NULL}, {"dead-letter-rejected", step_dead_letter_rejected, NULL},
    {"max-length", step_max_length, NULL}, {"priority", step_priority, NULL}, {"tx-commit", step_tx_commit, NULL},
    {"tx-rollback", step_tx_rollback, NULL}, {"direct-reply-to", step_direct_reply_to, NULL}, {"rpc-queue", step_rpc_queue, NULL},
    {"closed-channel", step_closed_channel, NULL}, {"closed-connection", step_closed_connection, NULL},
    {"recovery", NULL, "it does not connect again by itself"},
};

static void say(const char *step, const char *outcome, const char *detail)
{
    printf("{\"step\": \"%s\", \"outcome\": \"%s\", \"detail\": \"", step, outcome);
    for (; *detail; detail++) {
        if (*detail == '"' || *detail == '\\') putchar('\\');
        putchar(*detail < ' ' && *detail >= 0 ? ' ' : *detail);
    }
    puts("\"}");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct amqp_connection_info info;
    char *url = strdup(argc > 2 ? argv[1] : "");
    if (amqp_parse_url(url, &info) != AMQP_STATUS_OK) return 1;
    snprintf(user, sizeof user, "%s", info.user);
    snprintf(password, sizeof password, "%s", info.password);
    snprintf(vhost, sizeof vhost, "%s", info.vhost);
    snprintf(host, sizeof host, "%s", info.host);
    port = info.port;
    prefix = argv[2];
    printf("{\"client\": \"librabbitmq\", \"version\": \"%s\"}\n", amqp_version());
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        if (!steps[i].run) {
            say(steps[i].name, "absent", steps[i].absent);
            continue;
        }
        ours = other = NULL;
        if (setjmp(given_up) == 0) {
            ours = dial(FRAME_MAX, 0, 0);
            other = dial(FRAME_MAX, 0, 0);
            ok(other, amqp_confirm_select(other, CHANNEL));
            steps[i].run();
            say(steps[i].name, "ok", "");
        } else {
            say(steps[i].name, "failed", reason);
        }
        if (ours) hang_up(ours);
        if (other) hang_up(other);
    }
    return 0;
}
