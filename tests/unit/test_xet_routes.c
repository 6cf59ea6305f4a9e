/* tests/unit/test_xet_routes.c - uploads by Xet over HTTP: tokens, addresses, answers, a full push. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/json.h"
#include "core/path.h"
#include "recipes/hub/fetch.h"
#include "recipes/hub/xet_inside.h"
#include "tests/unit/root_test.h"

#define XORB "246805ed876f5c159e5aa36d7429d640d6ea5acbc8da1b8dbaf8e9a506cc55a5"

static struct hub {
    mb_xet *xet; /* first: as mb_xet_routes want it */
    int filed;
} hub;

static mb_http *server;
static mb_fetcher *fetcher;
static char *xorb, *shard;
static size_t n_xorb, n_shard;

static mb_status token(void *arg, mb_http_request *q)
{
    return mb_xet_token(((struct hub *)arg)->xet, q);
}

static mb_status file_it(void *arg, const char *path, const char sha256[MB_DIGEST_HEX],
                         int64_t size)
{
    ((struct hub *)arg)->filed++;
    return MB_OK;
}

static int setup(void **state)
{
    char path[512];
    static mb_http_route routes[MB_XET_ROUTES + 2];

    assert_int_equal(make_root(state), 0);
    snprintf(path, sizeof path, "%s/store", root);
    assert_int_equal(
        mb_xet_open(&(mb_xet_options){.dir = path, .file = file_it, .arg = &hub}, &hub.xet), MB_OK);
    memcpy(routes, mb_xet_routes, sizeof mb_xet_routes);
    routes[MB_XET_ROUTES] = (mb_http_route){"GET", "/token", token, .flags = MB_HTTP_OPEN};
    assert_int_equal(mb_http_start(&(mb_http_options){.routes = routes, .arg = &hub}, &server),
                     MB_OK);
    assert_int_equal(
        mb_fetcher_new(&(mb_fetch_options){.endpoint = "http://127.0.0.1:1", .tries = 1}, &fetcher),
        MB_OK);
    snprintf(path, sizeof path, "%s/xet/first.xorb", MB_TEST_DATA);
    assert_int_equal(mb_file_read(path, 1 << 20, &xorb, &n_xorb), MB_OK);
    snprintf(path, sizeof path, "%s/xet/first.shard", MB_TEST_DATA);
    assert_int_equal(mb_file_read(path, 1 << 20, &shard, &n_shard), MB_OK);
    return 0;
}

static int teardown(void **state)
{
    mb_free(xorb);
    mb_free(shard);
    mb_fetcher_free(fetcher);
    mb_xet_stop(hub.xet);
    mb_http_stop(server);
    mb_xet_free(hub.xet);
    return remove_root(state);
}

/* What is answered to a request of `path`; its body must hold `part`. */
static int ask(const char *method, const char *path, const char *bearer, const void *body, size_t n,
               const char *part)
{
    char url[512], head[256];
    const char *heads[] = {head, NULL};
    mb_fetch_answer a = {0};

    snprintf(url, sizeof url, "http://127.0.0.1:%d%s", mb_http_port(server), path);
    snprintf(head, sizeof head, "Authorization: Bearer %s", bearer != NULL ? bearer : "");
    const mb_fetch_request q = {.method = method,
                                .url = url,
                                .what = "a test",
                                .heads = bearer != NULL ? heads : NULL,
                                .body = body,
                                .body_n = n};
    mb_status st = mb_fetch_once(fetcher, &q, &a);
    if (st != MB_OK)
        fail_msg("%s %s: %s", method, path, mb_status_sentence());
    if (part != NULL && (a.body == NULL || strstr(a.body, part) == NULL))
        fail_msg("%s %s: %d '%s' does not say '%s'", method, path, a.status,
                 a.body != NULL ? a.body : "", part);
    const int status = a.status;
    mb_fetch_answer_release(&a);
    return status;
}

/* /xet/ID + rest */
static const char *at(const char *rest)
{
    static char path[4][256];
    static int turn;
    char *p = path[turn++ % 4];

    snprintf(p, sizeof path[0], "/xet/%s%s", hub.xet->id, rest);
    return p;
}

static const char *good(void)
{
    static char text[MB_XET_TOKEN];

    mb_xet_token_make(hub.xet, (int64_t)time(NULL) + 60, text);
    return text;
}

static void a_token_says_where_and_how_long(void **state)
{
    char url[128], head[256];
    mb_fetch_answer a = {0};
    mb_json_doc *doc;
    const char *text;
    int64_t exp;

    snprintf(url, sizeof url, "http://127.0.0.1:%d/token", mb_http_port(server));
    assert_int_equal(mb_fetch_once(fetcher, &(mb_fetch_request){.url = url, .what = "a token"}, &a),
                     MB_OK);
    assert_int_equal(a.status, 200);
    assert_int_equal(mb_json_parse(a.body, a.n, "a token", 0, MB_EDATA, &doc), MB_OK);
    const mb_json root_of = mb_json_root(doc);
    assert_int_equal(mb_json_get_string(root_of, "accessToken", "", &text), MB_OK);
    assert_true(mb_xet_token_good(hub.xet, text, time(NULL)));
    assert_true(mb_fetch_head(&a, "x-xet-access-token", head, sizeof head));
    assert_string_equal(head, text);
    assert_int_equal(mb_json_get_int(root_of, "exp", 0, &exp), MB_OK);
    assert_true(exp > time(NULL) + 3500 && exp <= time(NULL) + 3600);
    assert_int_equal(mb_json_get_string(root_of, "casUrl", "", &text), MB_OK);
    snprintf(url, sizeof url, "http://127.0.0.1:%d%s", mb_http_port(server), at(""));
    assert_string_equal(text, url);
    assert_true(mb_fetch_head(&a, "x-xet-cas-url", head, sizeof head));
    assert_string_equal(head, url);
    assert_true(mb_fetch_head(&a, "x-xet-token-expiration", head, sizeof head));
    mb_json_free(doc);
    mb_fetch_answer_release(&a);
}

static void only_tokens_of_ours_are_let_in(void **state)
{
    char old[MB_XET_TOKEN];

    mb_xet_token_make(hub.xet, (int64_t)time(NULL) - 1, old);
    const char *const wrong[] = {NULL, "", "hf_x", old};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(
            ask("POST", at("/v1/xorbs/default/" XORB), wrong[i], xorb, n_xorb, "token"), 401);
        assert_int_equal(ask("POST", at("/v1/shards"), wrong[i], shard, n_shard, "token"), 401);
    }
    assert_int_equal(
        ask("POST", "/xet/0123/v1/xorbs/default/" XORB, good(), xorb, n_xorb, "any more"), 404);
}

static void what_is_not_offered_is_404(void **state)
{
    assert_int_equal(ask("GET", at("/v1/chunks/default/" XORB), good(), NULL, 0, NULL), 404);
    assert_int_equal(ask("POST", at("/v1/xorb-grants/default/" XORB), good(), "{}", 2, NULL), 404);
    assert_int_equal(ask("POST", at("/v2/shards"), good(), shard, n_shard, NULL), 404);
    assert_int_equal(ask("GET", at("/v1/reconstructions/" XORB), good(), NULL, 0, NULL), 404);
}

static void what_is_wrong_is_400_and_says_why(void **state)
{
    static const char other[] = "8d7ae996b8174080d5b2fd43f1df626215bb183ef53f5a514918ed514b378cb2";
    char path[200];

    snprintf(path, sizeof path, "/v1/xorbs/default/%s", other);
    assert_int_equal(ask("POST", at(path), good(), xorb, n_xorb, XORB " by its chunks"), 400);
    assert_int_equal(ask("POST", at("/v1/xorbs/default/abc"), good(), xorb, n_xorb, "not the name"),
                     400);
    assert_int_equal(
        ask("POST", at("/v1/xorbs/default/" XORB), good(), xorb, n_xorb - 5, "ends within a chunk"),
        400);
    assert_int_equal(ask("POST", at("/v1/xorbs/default/" XORB), good(), "XX", 2, "within a chunk"),
                     400);
    assert_int_equal(ask("POST", at("/v1/shards"), good(), shard, n_shard, "no xorb " XORB), 400);
    assert_int_equal(ask("POST", at("/v1/shards"), good(), "shard", 5, "begin"), 400);
    assert_int_equal(hub.filed, 0);
}

static void a_push_is_answered_as_the_client_wants(void **state)
{
    assert_int_equal(
        ask("POST", at("/v1/xorbs/default/" XORB), good(), xorb, n_xorb, "{\"was_inserted\":true}"),
        200);
    assert_int_equal(ask("POST", at("/v1/xorbs/default/" XORB), good(), xorb, n_xorb,
                         "{\"was_inserted\":false}"),
                     200);
    assert_int_equal(ask("POST", at("/v1/shards"), good(), shard, n_shard, "{\"result\":1}"), 200);
    assert_int_equal(hub.filed, 3);
}

static void after_the_stop_shards_are_asked_to_wait(void **state)
{
    mb_xet_stop(hub.xet);
    assert_int_equal(ask("POST", at("/v1/shards"), good(), shard, n_shard, NULL), 503);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_says_where_and_how_long),
        cmocka_unit_test(only_tokens_of_ours_are_let_in),
        cmocka_unit_test(what_is_not_offered_is_404),
        cmocka_unit_test(what_is_wrong_is_400_and_says_why),
        cmocka_unit_test(a_push_is_answered_as_the_client_wants),
        cmocka_unit_test(after_the_stop_shards_are_asked_to_wait),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
