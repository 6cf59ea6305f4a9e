/* tests/unit/test_http.c - the server over real sockets: routes, checks, ranges, streams, cuts, and
 * what clients that are slow, silent or wrong cost the others. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>
/* cmocka.h wants the headers above first */
#include <cmocka.h>

#include "core/alloc.h"
#include "core/log.h"
#include "recipes/serve/http.h"
#include "recipes/serve/http_inside.h"

enum { FILE_BYTES = 300000 };

/* What handlers leave for the tests. */
static struct {
    mb_http *server;
    _Atomic(mb_http_reply *) held; /* by the thread that asked for it */
    atomic_int dropped, begun, handled;
    atomic_llong received;
    char file[64];
} shared;

static void wait_a_little(void)
{
    poll(NULL, 0, 2);
}

/* ---- handlers ----------------------------------------------------------------------------- */

static mb_status say_hello(void *arg, mb_http_request *q)
{
    return mb_http_answer(q, 200, "text/plain", "hello", 5);
}

static mb_status say_parts(void *arg, mb_http_request *q)
{
    char text[400];
    const char *name = mb_http_query(q, "q");
    const int n = snprintf(text, sizeof text, "%s|%s|%s|%s", mb_http_part(q, "org"),
                           mb_http_part(q, "rest") != NULL ? mb_http_part(q, "rest") : "-",
                           name != NULL ? name : "-", mb_http_origin(q));

    return mb_http_answer(q, 200, "text/plain", text, (size_t)n);
}

static mb_status echo(void *arg, mb_http_request *q)
{
    size_t n;
    const void *body = mb_http_whole(q, &n);

    MB_TRY(mb_http_add(q, "X-Bytes", "counted"));
    return mb_http_answer(q, 200, "application/octet-stream", body, n);
}

static mb_status complain(void *arg, mb_http_request *q)
{
    return MB_RAISE(MB_EARG, "the number is too odd");
}

static mb_status break_down(void *arg, mb_http_request *q)
{
    return MB_RAISE(MB_ENUM, "the model said NaN");
}

static mb_status give_file(void *arg, mb_http_request *q)
{
    return mb_http_answer_file(q, open(shared.file, O_RDONLY), FILE_BYTES, "text/plain", "tag-1");
}

static mb_status hold(void *arg, mb_http_request *q)
{
    mb_http_reply *r;

    MB_TRY(mb_http_later(q, &r));
    shared.held = r;
    return MB_OK;
}

static void *stream_numbers(void *arg)
{
    mb_http_reply *r = arg;
    char line[32];

    mb_http_reply_begin(r, 200, "text/event-stream");
    for (int i = 0; i < 200; i++) {
        mb_http_reply_write(r, line, (size_t)snprintf(line, sizeof line, "data: %d\n\n", i));
        if (i % 50 == 0)
            wait_a_little();
    }
    mb_http_reply_end(r);
    return NULL;
}

static mb_status stream(void *arg, mb_http_request *q)
{
    mb_http_reply *r;
    pthread_t thread;

    MB_TRY(mb_http_later(q, &r));
    assert_int_equal(pthread_create(&thread, NULL, stream_numbers, r), 0);
    return pthread_detach(thread) == 0 ? MB_OK : MB_EBUG;
}

static mb_status upload_begin(void *arg, mb_http_request *q, void **state)
{
    if (mb_http_query(q, "refuse") != NULL)
        return mb_http_refuse(q, 409, "conflict", "not now");
    shared.begun++;
    *state = &shared;
    return MB_OK;
}

static mb_status upload_piece(void *state, const void *data, size_t n)
{
    assert_ptr_equal(state, &shared);
    MB_REQUIRE(memchr(data, '!', n) == NULL, MB_EARG, "a '!' was sent");
    shared.received += (long long)n;
    return MB_OK;
}

static void upload_drop(void *state)
{
    shared.dropped++;
}

static mb_status upload_done(void *arg, mb_http_request *q)
{
    shared.handled++;
    return mb_http_answer(q, 201, "text/plain", "kept", 4);
}

static mb_status need_key(void *arg, mb_http_request *q)
{
    const char *key = mb_http_head(q, "X-Key");

    if (key == NULL || strcmp(key, "sesame") != 0)
        return mb_http_refuse(q, 401, "key", "the key is missing");
    return MB_OK;
}

static const mb_http_route routes[] = {
    {"GET", "/", say_hello, .flags = MB_HTTP_OPEN},
    {"GET", "/locked", say_hello, .flags = 0},
    {"GET", "/p/{org}", say_parts, .flags = MB_HTTP_OPEN},
    {"GET", "/p/{org}/to/{rest*}/end", say_parts, .flags = MB_HTTP_OPEN},
    {"GET", "/s/{org}", say_parts, .flags = MB_HTTP_OPEN | MB_HTTP_SLASHES},
    {"POST", "/echo", echo, .body = MB_HTTP_WHOLE, .body_max = 100000, .flags = MB_HTTP_OPEN},
    {"POST", "/fail", complain, .flags = MB_HTTP_OPEN},
    {"POST", "/break", break_down, .flags = MB_HTTP_OPEN},
    {"GET", "/file", give_file, .flags = MB_HTTP_OPEN},
    {"GET", "/hold", hold, .flags = MB_HTTP_OPEN},
    {"GET", "/stream", stream, .flags = MB_HTTP_OPEN},
    {"PUT", "/upload", upload_done, MB_HTTP_PIECES, 1 << 20, MB_HTTP_OPEN, upload_begin,
     upload_piece, upload_drop},
    {.method = NULL},
};

static int start(void **state)
{
    static const mb_http_header headers[] = {{"X-Of-All", "yes"}, {0}};
    static const char *const hosts[] = {"box.example", NULL};
    const mb_http_options o = {.routes = routes,
                               .allow = need_key,
                               .headers = headers,
                               .hosts = hosts,
                               .header_seconds = 2};
    int fd;

    strcpy(shared.file, "/tmp/mbuyu-http-XXXXXX");
    fd = mkstemp(shared.file);
    for (int i = 0; i < FILE_BYTES / 10; i++)
        dprintf(fd, "%09d\n", i);
    close(fd);
    return mb_http_start(&o, &shared.server) == MB_OK ? 0 : -1;
}

static int stop(void **state)
{
    mb_http_stop(shared.server);
    unlink(shared.file);
    return 0;
}

/* ---- a client ----------------------------------------------------------------------------- */

static int reach(void)
{
    const struct sockaddr_in at = {.sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)mb_http_port(shared.server)),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct timeval limit = {.tv_sec = 10};
    const int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    assert_int_equal(connect(fd, (const struct sockaddr *)&at, sizeof at), 0);
    return fd;
}

static void send_all(int fd, const char *data, size_t n)
{
    for (size_t at = 0; at < n;) {
        const ssize_t put = send(fd, data + at, n - at, MSG_NOSIGNAL);

        if (put <= 0)
            return;
        at += (size_t)put;
    }
}

#define SEND(fd, text) send_all(fd, text, sizeof text - 1)

/* What comes until the other side closes, zero-terminated, owned by the caller. */
static char *receive_all(int fd, size_t *n)
{
    size_t capacity = 0;
    char *text = NULL;
    ssize_t got;

    *n = 0;
    do {
        assert_int_equal(mb_grow((void **)&text, &capacity, *n + 4097, 1, "text"), MB_OK);
        got = recv(fd, text + *n, 4096, 0);
        *n += got > 0 ? (size_t)got : 0;
    } while (got > 0);
    text[*n] = '\0';
    return text;
}

static char *ask_bytes(const char *request, size_t n, size_t *n_out)
{
    const int fd = reach();
    char *text;

    send_all(fd, request, n);
    text = receive_all(fd, n_out);
    close(fd);
    return text;
}

/* A request with the usual head; `head` is more lines of it. */
static char *ask(const char *line, const char *head, const char *body)
{
    char request[4096];
    size_t n;
    const int length = snprintf(request, sizeof request,
                                "%s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n%s\r\n%s",
                                line, head, body);

    return ask_bytes(request, (size_t)length, &n);
}

static void expect_status(char *answer, int status, const char *holds)
{
    char want[32];

    snprintf(want, sizeof want, "HTTP/1.1 %d ", status);
    if (strncmp(answer, want, strlen(want)) != 0 ||
        (holds != NULL && strstr(answer, holds) == NULL))
        fail_msg("wanted %d with %s, got: %.600s", status, holds != NULL ? holds : "-", answer);
    mb_free(answer);
}

/* ---- tests -------------------------------------------------------------------------------- */

static void routes_parts_and_methods(void **state)
{
    char host[64];

    snprintf(host, sizeof host, "|-|-|http://127.0.0.1");
    expect_status(ask("GET /", "", ""), 200, "hello");
    expect_status(ask("GET /", "", ""), 200, "X-Of-All: yes");
    expect_status(ask("GET /", "", ""), 200, "X-Content-Type-Options: nosniff");
    expect_status(ask("GET /p/caf%C3%A9%20au", "", ""), 200, "caf\xc3\xa9 au|-|-");
    expect_status(ask("GET /p/o/to/a/b/c/end?x=1&q=a%26b+c", "", ""), 200, "o|a/b/c|a&b c|http");
    expect_status(ask("GET /p/o/to/end", "", ""), 404, NULL);
    expect_status(ask("GET /p/", "", ""), 404, NULL);
    expect_status(ask("GET /nothing", "", ""), 404, "/nothing");
    expect_status(ask("DELETE /echo", "", ""), 405, "Allow: POST");
    expect_status(ask("POST /file", "", ""), 405, "Allow: GET, HEAD");
    expect_status(ask("POST /fail", "", ""), 400, "the number is too odd");
    expect_status(ask("POST /break", "", ""), 500, "NaN");
    expect_status(ask("GET /locked", "", ""), 401, "the key is missing");
    expect_status(ask("GET /locked", "X-Key: sesame\r\n", ""), 200, "hello");
    expect_status(ask("GET /s/a%2Fb", "", ""), 200, "a/b|-");
    expect_status(ask("GET /p/a%2Fb", "", ""), 404, NULL);
}

static void head_has_the_head_of_get(void **state)
{
    char *answer = ask("HEAD /file", "", "");

    assert_non_null(strstr(answer, "Content-Length: 300000"));
    assert_non_null(strstr(answer, "ETag: \"tag-1\""));
    assert_string_equal(strstr(answer, "\r\n\r\n"), "\r\n\r\n");
    expect_status(answer, 200, NULL);
}

static void ranges_and_tags_of_files(void **state)
{
    char *whole = ask("GET /file", "", "");

    assert_int_equal(strlen(strstr(whole, "\r\n\r\n") + 4), FILE_BYTES);
    expect_status(whole, 200, "Accept-Ranges: bytes");
    expect_status(ask("GET /file", "Range: bytes=10-19\r\n", ""), 206, "\r\n\r\n000000001\n");
    expect_status(ask("GET /file", "Range: bytes=10-19\r\n", ""), 206,
                  "Content-Range: bytes 10-19/300000");
    expect_status(ask("GET /file", "Range: bytes=-10\r\n", ""), 206, "\r\n\r\n000029999\n");
    expect_status(ask("GET /file", "Range: bytes=299990-\r\n", ""), 206, "\r\n\r\n000029999\n");
    expect_status(ask("GET /file", "Range: bytes=299990-999999999\r\n", ""), 206, "/300000");
    expect_status(ask("GET /file", "Range: bytes=300000-\r\n", ""), 416, "bytes */300000");
    expect_status(ask("GET /file", "Range: bytes=-0\r\n", ""), 416, "bytes */300000");
    expect_status(ask("GET /file", "Range: bytes=5-1\r\n", ""), 200, NULL);
    expect_status(ask("GET /file", "Range: lines=1-2\r\n", ""), 200, NULL);
    expect_status(ask("GET /file", "Range: bytes=1-2\r\nIf-Range: \"old\"\r\n", ""), 200, NULL);
    expect_status(ask("GET /file", "Range: bytes=1-2\r\nIf-Range: \"tag-1\"\r\n", ""), 206, NULL);
    expect_status(ask("GET /file", "If-None-Match: \"x\", W/\"tag-1\"\r\n", ""), 304, "tag-1");
    expect_status(ask("GET /file", "If-None-Match: \"tag-11\"\r\n", ""), 200, NULL);
}

static void names_that_are_not_ours_are_refused(void **state)
{
    static const struct {
        const char *head;
        int status;
    } rows[] = {
        {"Host: localhost:9\r\n", 200},
        {"Host: [::1]:9\r\n", 200},
        {"Host: BOX.example\r\n", 200},
        {"Host: evil.example\r\n", 403},
        {"Host: localhost.evil.example\r\n", 403},
        {"Host: 127.0.0.1.evil.example\r\n", 403},
        {"Host: 192.0.2.1\r\n", 403},
        {"Host: 127.0.0.1@evil\r\n", 400},
        {"Host: \r\n", 400},
        {"Host: [::1\r\n", 400},
        {"Host: a:b:c\r\n", 400},
        {"Host: localhost\r\nHost: localhost\r\n", 400},
        {"Host: localhost:9\r\nOrigin: http://localhost:9\r\n", 200},
        {"Host: localhost\r\nOrigin: http://localhost:80\r\n", 200},
        {"Host: localhost:9\r\nOrigin: http://box.example\r\n", 200},
        {"Host: localhost:9\r\nOrigin: http://localhost:10\r\n", 403},
        {"Host: localhost:9\r\nOrigin: http://127.0.0.1:9\r\n", 403},
        {"Host: localhost:9\r\nOrigin: http://evil.example\r\n", 403},
        {"Host: localhost:9\r\nOrigin: null\r\n", 403},
        {"Host: localhost:9\r\nOrigin: file://\r\n", 403},
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char request[300];
        size_t n;

        snprintf(request, sizeof request, "GET / HTTP/1.1\r\nConnection: close\r\n%s\r\n",
                 rows[i].head);
        expect_status(ask_bytes(request, strlen(request), &n), rows[i].status, NULL);
    }
}

static void paths_do_not_climb(void **state)
{
    static const char *const paths[] = {
        "/p/..",     "/p/../file", "/p/%2e%2e", "/p/.%2E/file", "/p/%2e", "/s/..%2f..%2fetc",
        "/s/a%2f..", "/s/..%5c..", "/p/%00",    "/p/a%0d%0ab",  "/p/%",   "/p/%4",
        "/p/%zz",    "/p/%ff",     "/p/%c0%ae", "/p/a#b",       "p/a",    "*",
        "//..//",    "/?a=%00",
    };

    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        char line[100];

        snprintf(line, sizeof line, "GET %s", paths[i]);
        expect_status(ask(line, "", ""), 400, NULL);
    }
}

static void bodies_whole_and_in_pieces(void **state)
{
    char *big = malloc(3000000);
    size_t n;
    int length;

    expect_status(ask("POST /echo", "Content-Length: 4\r\n", "abcd"), 200, "\r\n\r\nabcd");
    expect_status(ask("POST /echo", "Content-Length: 4\r\n", "abcd"), 200, "X-Bytes: counted");
    expect_status(
        ask("POST /echo", "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"),
        200, "\r\n\r\nabcde");
    expect_status(ask("GET /", "Content-Length: 4\r\n", "abcd"), 400, "takes no body");
    expect_status(
        ask("POST /echo", "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400,
        NULL);
    expect_status(ask("POST /echo", "Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), 501,
                  NULL);
    /* a client that writes everything before it reads learns why all the same */
    length = snprintf(big, 3000000,
                      "POST /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                      "Content-Length: 2000000\r\n\r\n");
    memset(big + length, 'x', 2000000);
    expect_status(ask_bytes(big, (size_t)length + 2000000, &n), 413, "takes 100000");
    length = snprintf(big, 3000000,
                      "PUT /upload HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                      "Content-Length: 1000000\r\n\r\n");
    memset(big + length, 'x', 1000000);
    expect_status(ask_bytes(big, (size_t)length + 1000000, &n), 201, "kept");
    assert_int_equal(shared.received, 1000000);
    assert_int_equal(shared.handled, 1);
    big[length + 500000] = '!';
    expect_status(ask_bytes(big, (size_t)length + 1000000, &n), 400, "a '!' was sent");
    assert_int_equal(shared.handled, 1);
    expect_status(ask("PUT /upload?refuse=1", "Content-Length: 4\r\n", "abcd"), 409, "not now");
    assert_int_equal(shared.begun, 2);
    for (int i = 0; i < 1000 && shared.dropped != 2; i++)
        wait_a_little();
    assert_int_equal(shared.dropped, 2);
    free(big);
}

static void an_answer_may_come_later(void **state)
{
    static const char hold[] = "GET /hold HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    const int fd = reach();
    size_t n;
    char *text;

    shared.held = NULL;
    send_all(fd, hold, sizeof hold - 1);
    while (shared.held == NULL)
        wait_a_little();
    assert_false(mb_http_reply_gone(shared.held));
    mb_http_reply_send(shared.held, 202, "text/plain", "late", 4);
    text = receive_all(fd, &n);
    expect_status(text, 202, "late");
    close(fd);
}

static void a_client_that_hangs_up_is_noticed(void **state)
{
    for (int i = 0; i < 100; i++) {
        const int fd = reach();
        double t;

        shared.held = NULL;
        SEND(fd, "GET /hold HTTP/1.1\r\nHost: localhost\r\n\r\n");
        while (shared.held == NULL)
            wait_a_little();
        if (i % 2)
            mb_http_reply_begin(shared.held, 200, "text/event-stream");
        close(fd);
        t = mb_clock();
        while (!mb_http_reply_gone(shared.held) && mb_clock() - t < 5)
            wait_a_little();
        assert_true(mb_clock() - t < 1);
        mb_http_reply_drop(shared.held);
    }
}

static void a_stream_arrives_whole_and_in_order(void **state)
{
    for (int turn = 0; turn < 20; turn++) {
        char *text = ask("GET /stream", "", ""), *at = text;

        for (int i = 0; i < 200; i++) {
            char want[32];

            snprintf(want, sizeof want, "data: %d\n", i);
            at = strstr(at, want);
            assert_non_null(at);
        }
        assert_non_null(strstr(at, "\r\n0\r\n\r\n"));
        expect_status(text, 200, "text/event-stream");
    }
}

static void who_does_not_read_a_stream_is_gone(void **state)
{
    const int fd = reach();
    char block[65536] = {0};
    int written = 0;

    shared.held = NULL;
    SEND(fd, "GET /hold HTTP/1.1\r\nHost: localhost\r\n\r\n");
    while (shared.held == NULL)
        wait_a_little();
    mb_http_reply_begin(shared.held, 200, "text/event-stream");
    while (!mb_http_reply_gone(shared.held) && written < 2000) {
        mb_http_reply_write(shared.held, block, sizeof block);
        written++;
    }
    assert_true(mb_http_reply_gone(shared.held));
    assert_true(written >= 16);
    mb_http_reply_drop(shared.held);
    close(fd);
}

/* Several pieces that nobody can have read before the next is there. */
static void a_large_piece_is_no_sign_of_a_client_that_is_gone(void **state)
{
    enum { LARGE = 3 << 20, SMALL = 1000 };
    char *block = malloc(LARGE);
    const int fd = reach();
    size_t n;

    memset(block, 'x', LARGE);
    shared.held = NULL;
    SEND(fd, "GET /hold HTTP/1.0\r\nHost: localhost\r\n\r\n");
    while (shared.held == NULL)
        wait_a_little();
    mb_http_reply_begin(shared.held, 200, "text/event-stream");
    for (int i = 0; i < 4; i++) {
        mb_http_reply_write(shared.held, block, LARGE);
        mb_http_reply_write(shared.held, block, SMALL);
        assert_false(mb_http_reply_gone(shared.held));
    }
    mb_http_reply_end(shared.held);
    char *text = receive_all(fd, &n), *body = strstr(text, "\r\n\r\n");

    assert_non_null(body);
    assert_int_equal(n - (size_t)(body + 4 - text), 4 * (LARGE + SMALL));
    mb_free(text);
    close(fd);
    free(block);
}

static void what_is_not_http_is_4xx(void **state)
{
    static const char *const rows[] = {
        "GET\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost localhost\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: localhost\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: five\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t n;
        char *text = ask_bytes(rows[i], strlen(rows[i]), &n);

        if (n > 0 && strncmp(text, "HTTP/1.1 4", 10) != 0 && strncmp(text, "HTTP/1.0 4", 10) != 0 &&
            strncmp(text, "HTTP/1.1 505", 12) != 0)
            fail_msg("%s was answered %.200s", rows[i], text);
        mb_free(text);
    }
    char *long_head = malloc(70000);
    size_t n = (size_t)sprintf(long_head, "GET / HTTP/1.1\r\nHost: localhost\r\nX: ");

    memset(long_head + n, 'a', 60000);
    strcpy(long_head + n + 60000, "\r\n\r\n");
    expect_status(ask_bytes(long_head, strlen(long_head), &n), 431, NULL);
    n = (size_t)sprintf(long_head, "GET /");
    memset(long_head + n, 'a', 60000);
    strcpy(long_head + n + 60000, " HTTP/1.1\r\nHost: localhost\r\n\r\n");
    char *text = ask_bytes(long_head, strlen(long_head), &n);

    assert_true(strncmp(text, "HTTP/1.1 414", 12) == 0 || strncmp(text, "HTTP/1.1 431", 12) == 0);
    mb_free(text);
    free(long_head);
}

/* Seconds for n requests of one connection each. */
static double time_requests(int n)
{
    const double t = mb_clock();

    for (int i = 0; i < n; i++)
        expect_status(ask("GET /", "", ""), 200, "hello");
    return mb_clock() - t;
}

static void slow_clients_do_not_slow_others_and_are_dropped(void **state)
{
    enum { SLOW = 1000, REQUESTS = 200 };
    const mb_http_options o = {.routes = routes};
    int *fd = malloc(SLOW * sizeof *fd);
    mb_http *busy = shared.server, *idle;
    double alone, beside, t;
    int open_ones = 0;

    assert_int_equal(mb_http_start(&o, &idle), MB_OK);
    for (int i = 0; i < SLOW; i++) {
        fd[i] = reach();
        if (i % 2)
            SEND(fd[i], "GET / HTTP/1.1\r\nHo");
    }
    /* A pair again where the machine was busy with something else: one after the other both meet it. The
     * slow ones are dropped after two seconds. */
    t = mb_clock();
    do {
        shared.server = idle;
        alone = time_requests(REQUESTS);
        shared.server = busy;
        beside = time_requests(REQUESTS);
    } while (beside >= 2 * alone && mb_clock() - t < 1.5);
    mb_http_stop(idle);
    print_message("200 requests: %.0f ms alone, %.0f ms beside 1000 slow clients\n", 1000 * alone,
                  1000 * beside);
    assert_true(beside < 2 * alone);
    /* a byte now and then does not help: the head must be there after two seconds */
    for (t = mb_clock(); mb_clock() - t < 4; poll(NULL, 0, 200))
        for (int i = 1; i < SLOW; i += 2)
            send(fd[i], "s", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    for (int i = 0; i < SLOW; i++) {
        char c;

        open_ones += recv(fd[i], &c, 1, MSG_DONTWAIT) < 0 && (errno == EAGAIN);
        close(fd[i]);
    }
    assert_int_equal(open_ones, 0);
    free(fd);
}

static void stopping_ends_what_is_open(void **state)
{
    const mb_http_options o = {.routes = routes};
    mb_http *before = shared.server, *other;
    int fd;
    char c;

    assert_int_equal(mb_http_start(&o, &other), MB_OK);
    shared.server = other;
    fd = reach();
    shared.held = NULL;
    SEND(fd, "GET /hold HTTP/1.1\r\nHost: localhost\r\n\r\n");
    while (shared.held == NULL)
        wait_a_little();
    mb_http_reply_begin(shared.held, 200, "text/event-stream");
    mb_http_stop(other);
    assert_true(mb_http_reply_gone(shared.held));
    mb_http_reply_write(shared.held, "x", 1);
    mb_http_reply_end(shared.held);
    while (recv(fd, &c, 1, 0) > 0)
        ;
    close(fd);
    shared.server = before;
}

static void an_address_in_use_is_named(void **state)
{
    const mb_http_options taken = {.routes = routes, .port = mb_http_port(shared.server)};
    const mb_http_options wrong = {.routes = routes, .address = "not-an-address"};
    mb_http *s;

    assert_int_equal(mb_http_start(&taken, &s), MB_EARG);
    assert_non_null(strstr(mb_status_sentence(), "in use"));
    mb_status_clear();
    assert_int_equal(mb_http_start(&wrong, &s), MB_EARG);
    assert_non_null(strstr(mb_status_sentence(), "not-an-address"));
    mb_status_clear();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(routes_parts_and_methods),
        cmocka_unit_test(head_has_the_head_of_get),
        cmocka_unit_test(ranges_and_tags_of_files),
        cmocka_unit_test(names_that_are_not_ours_are_refused),
        cmocka_unit_test(paths_do_not_climb),
        cmocka_unit_test(bodies_whole_and_in_pieces),
        cmocka_unit_test(an_answer_may_come_later),
        cmocka_unit_test(a_client_that_hangs_up_is_noticed),
        cmocka_unit_test(a_stream_arrives_whole_and_in_order),
        cmocka_unit_test(who_does_not_read_a_stream_is_gone),
        cmocka_unit_test(a_large_piece_is_no_sign_of_a_client_that_is_gone),
        cmocka_unit_test(what_is_not_http_is_4xx),
        cmocka_unit_test(slow_clients_do_not_slow_others_and_are_dropped),
        cmocka_unit_test(stopping_ends_what_is_open),
        cmocka_unit_test(an_address_in_use_is_named),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, start, stop);
}
