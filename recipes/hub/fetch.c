/* recipes/hub/fetch.c - one request with its redirects, by libcurl; see recipes/hub/fetch.h. What an
 * answer means is in fetch_judge.c, addresses and the token are in fetch_where.c. */
#include <arpa/inet.h>
#include <ctype.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "recipes/hub/fetch_inside.h"

enum { MOST_HEADS = 64 << 10, MOST_ERROR = 64 << 10, MOST_REDIRECTS = 10 };

struct line { /* a curl handle with the connections it keeps */
    CURL *curl;
    struct line *next;
};

struct mb_fetcher {
    mb_fetch_options o;
    char origin[MB_ORIGIN_MAX]; /* whose token it is; "": no token */
    char *token;
    pthread_mutex_t mutex;
    struct line *idle;
    double rate_free_at; /* when the bytes so far are paid for */
};

/* One exchange: a request to one address. */
struct exchange {
    mb_fetcher *f;
    const mb_fetch_request *q;
    mb_fetch_answer *a;
    CURL *curl;
    mb_status st; /* of callbacks; MB_OK: curl's own failure, if any */
    bool private_only, begun, enough;
    size_t heads_n, capacity;
    int64_t sent; /* bytes of the body so far */
    int64_t got;
    char error[CURL_ERROR_SIZE];
};

/* ---- fetchers ------------------------------------------------------------------------------ */

static void start_curl(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

static double seconds_of(double given, const char *variable, double otherwise)
{
    const char *text = variable != NULL ? getenv(variable) : NULL;
    const double v = text != NULL ? strtod(text, NULL) : 0.0;

    return given > 0.0 ? given : v > 0.0 && v < 1e6 ? v : otherwise;
}

mb_status mb_fetcher_new(const mb_fetch_options *o, mb_fetcher **out)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    mb_fetcher *f = NULL;
    mb_status st;

    pthread_once(&once, start_curl);
    MB_TRY(MB_NEW(&f));
    f->o = *o;
    pthread_mutex_init(&f->mutex, NULL);
    f->o.connect_seconds = seconds_of(o->connect_seconds, NULL, 15.0);
    f->o.stall_seconds = seconds_of(o->stall_seconds, "HF_HUB_DOWNLOAD_TIMEOUT", 30.0);
    f->o.first_pause = seconds_of(o->first_pause, NULL, 1.0);
    f->o.longest_pause = seconds_of(o->longest_pause, NULL, 300.0);
    f->o.tries = o->tries > 0 ? o->tries : 5;
    f->o.endpoint = f->o.token = NULL; /* copies below */
    if (o->token != NULL && o->token[0] != '\0') {
        MB_TRY_GOTO(mb_fetch_origin(o->endpoint, f->origin, sizeof f->origin), st, fail);
        MB_TRY_GOTO(mb_strdup(o->token, &f->token), st, fail);
    }
    *out = f;
    return MB_OK;
fail:
    mb_fetcher_free(f);
    return st;
}

void mb_fetcher_free(mb_fetcher *f)
{
    if (f == NULL)
        return;
    while (f->idle != NULL) {
        struct line *l = f->idle;

        f->idle = l->next;
        curl_easy_cleanup(l->curl);
        mb_free(l);
    }
    if (f->token != NULL)
        explicit_bzero(f->token, strlen(f->token));
    mb_free(f->token);
    pthread_mutex_destroy(&f->mutex);
    mb_free(f);
}

const mb_fetch_options *mb_fetcher_options(const mb_fetcher *f)
{
    return &f->o;
}

static mb_status take_line(mb_fetcher *f, struct line **out)
{
    struct line *l;

    pthread_mutex_lock(&f->mutex);
    l = f->idle;
    if (l != NULL)
        f->idle = l->next;
    pthread_mutex_unlock(&f->mutex);
    if (l == NULL) {
        MB_TRY(MB_NEW(&l));
        l->curl = curl_easy_init();
        if (l->curl == NULL) {
            mb_free(l);
            return MB_RAISE(MB_ENOMEM, "libcurl has no memory for a connection");
        }
    }
    *out = l;
    return MB_OK;
}

static void give_line(mb_fetcher *f, struct line *l)
{
    curl_easy_reset(l->curl); /* keeps connections, forgets headers */
    pthread_mutex_lock(&f->mutex);
    l->next = f->idle;
    f->idle = l;
    pthread_mutex_unlock(&f->mutex);
}

/* Waits until n more bytes are due. */
static void pay(mb_fetcher *f, size_t n)
{
    double now, wait;

    if (f->o.rate <= 0)
        return;
    pthread_mutex_lock(&f->mutex);
    now = mb_clock();
    if (f->rate_free_at < now)
        f->rate_free_at = now;
    wait = f->rate_free_at - now;
    f->rate_free_at += (double)n / (double)f->o.rate;
    pthread_mutex_unlock(&f->mutex);
    mb_fetch_sleep(wait);
}

/* ---- what curl calls ----------------------------------------------------------------------- */

static bool is_ok(const mb_fetch_answer *a)
{
    return a->status >= 200 && a->status < 300;
}

static size_t on_head(char *line, size_t size, size_t n, void *arg)
{
    struct exchange *x = arg;
    size_t used = size * n, colon = 0;
    char *to;

    while (used > 0 && (line[used - 1] == '\r' || line[used - 1] == '\n'))
        used--;
    if (used >= 5 && strncasecmp(line, "HTTP/", 5) == 0) {
        x->heads_n = 0; /* the answer after a 100 Continue */
        x->a->heads[0] = '\0';
        return size * n;
    }
    if (used == 0)
        return size * n;
    if (x->heads_n + used + 2 > MOST_HEADS) {
        x->st = MB_RAISE(MB_ENET, "%s: more than %d bytes of headers", x->q->what, MOST_HEADS);
        return 0;
    }
    to = x->a->heads + x->heads_n;
    memcpy(to, line, used);
    for (; colon < used && to[colon] != ':'; colon++)
        to[colon] = (char)tolower((unsigned char)to[colon]);
    to[used] = '\n';
    to[used + 1] = '\0';
    x->heads_n += used + 1;
    return size * n;
}

static void read_status(struct exchange *x)
{
    long status = 0;
    curl_off_t length = -1;

    curl_easy_getinfo(x->curl, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(x->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    x->a->status = (int)status;
    x->a->length = length;
}

static mb_status keep(struct exchange *x, const char *data, size_t n)
{
    const size_t most = !is_ok(x->a) ? MOST_ERROR : x->q->most > 0 ? x->q->most : 16 << 20;

    if (!is_ok(x->a) && n > most - x->a->n) {
        n = most - x->a->n;
        x->enough = true;
    }
    MB_REQUIRE(n <= most - x->a->n, MB_EDATA, "%s: %s sends more than %zu bytes", x->q->what,
               x->a->url, most);
    MB_TRY(mb_grow((void **)&x->a->body, &x->capacity, x->a->n + n + 1, 1, "an answer"));
    memcpy(x->a->body + x->a->n, data, n);
    x->a->n += n;
    x->a->body[x->a->n] = '\0';
    return MB_OK;
}

static mb_status begin(struct exchange *x)
{
    const mb_fetch_sink *s = x->q->sink;

    x->begun = true;
    return s->begin != NULL ? s->begin(s->arg, x->a) : MB_OK;
}

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
    struct exchange *x = arg;
    const mb_fetch_sink *s = x->q->sink;

    n *= size;
    pay(x->f, n);
    x->got += (int64_t)n;
    if (x->a->status == 0)
        read_status(x);
    if (s == NULL || !is_ok(x->a)) {
        x->st = keep(x, data, n);
    } else {
        if (!x->begun)
            x->st = begin(x);
        if (x->st == MB_OK)
            x->st = s->write(s->arg, data, n);
    }
    return x->st == MB_OK && !x->enough ? n : CURL_WRITEFUNC_ERROR;
}

static size_t on_send(char *to, size_t size, size_t n, void *arg)
{
    struct exchange *x = arg;
    const mb_fetch_source *s = x->q->source;
    const int64_t all = s != NULL ? s->size : (int64_t)x->q->body_n;
    size_t got = 0;

    n *= size;
    if ((int64_t)n > all - x->sent)
        n = (size_t)(all - x->sent);
    if (n == 0)
        return 0;
    if (s == NULL) {
        memcpy(to, (const char *)x->q->body + x->sent, n);
        got = n;
    } else {
        x->st = s->read(s->arg, x->sent, to, n, &got);
        if (x->st == MB_OK && got == 0)
            x->st = MB_RAISE(MB_EIO, "%s: its file became shorter while it was sent", x->q->what);
        if (x->st != MB_OK)
            return CURL_READFUNC_ABORT;
    }
    pay(x->f, got);
    x->sent += (int64_t)got;
    return got;
}

static int on_seek(void *arg, curl_off_t offset, int origin)
{
    struct exchange *x = arg;

    if (origin != SEEK_SET)
        return CURL_SEEKFUNC_FAIL;
    x->sent = offset;
    return CURL_SEEKFUNC_OK;
}

static bool is_private4(uint32_t ip) /* host order */
{
    return ip >> 24 == 127 || ip >> 24 == 10 || ip >> 20 == 0xac1 || ip >> 16 == 0xc0a8 ||
           ip >> 16 == 0xa9fe || ip >> 22 == 0x64400000u >> 22;
}

static bool is_private(const struct sockaddr *to)
{
    if (to->sa_family == AF_INET) {
        struct sockaddr_in in;

        memcpy(&in, to, sizeof in);
        return is_private4(ntohl(in.sin_addr.s_addr));
    }
    if (to->sa_family == AF_INET6) {
        struct sockaddr_in6 in;
        const uint8_t *b = in.sin6_addr.s6_addr;
        uint32_t v4;

        memcpy(&in, to, sizeof in);
        if (IN6_IS_ADDR_V4MAPPED(&in.sin6_addr)) {
            memcpy(&v4, b + 12, 4);
            return is_private4(ntohl(v4));
        }
        return IN6_IS_ADDR_LOOPBACK(&in.sin6_addr) || IN6_IS_ADDR_LINKLOCAL(&in.sin6_addr) ||
               (b[0] & 0xfe) == 0xfc;
    }
    return false;
}

static curl_socket_t on_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *to)
{
    struct exchange *x = arg;

    if (x->private_only && !is_private(&to->addr)) {
        x->a->hopeless = true;
        x->st = MB_RAISE(MB_EDENIED,
                         "%s: %s is neither encrypted nor a private address, so the token is not "
                         "sent there: use https, or no token",
                         x->q->what, x->a->url);
        return CURL_SOCKET_BAD;
    }
    return socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
}

/* ---- one exchange -------------------------------------------------------------------------- */

static const char *certificates(void)
{
    static const char *const names[] = {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *path = getenv(names[i]);

        if (path != NULL && path[0] != '\0' && access(path, R_OK) == 0)
            return path;
    }
    return NULL;
}

static mb_status add_head(struct curl_slist **list, const char *text)
{
    struct curl_slist *more;

    MB_REQUIRE(strpbrk(text, "\r\n") == NULL, MB_EARG, "a header with a line break in it");
    more = curl_slist_append(*list, text);
    MB_REQUIRE(more != NULL, MB_ENOMEM, "libcurl has no memory for a header");
    *list = more;
    return MB_OK;
}

static bool is_secret(const char *head)
{
    return strncasecmp(head, "authorization:", 14) == 0 || strncasecmp(head, "cookie:", 7) == 0 ||
           strncasecmp(head, "x-amz-", 6) == 0;
}

/* `at_home`: the address is that of the request, not where another origin's redirect led. */
static mb_status make_heads(const struct exchange *x, bool with_token, bool at_home,
                            struct curl_slist **list)
{
    char *bearer = NULL;
    mb_status st;

    MB_TRY(add_head(list, "Expect:")); /* no waiting for 100 Continue */
    for (const char *const *h = x->q->heads; h != NULL && *h != NULL; h++)
        if (at_home || !is_secret(*h))
            MB_TRY(add_head(list, *h));
    if (!with_token)
        return MB_OK;
    MB_TRY(mb_asprintf(&bearer, "Authorization: Bearer %s", x->f->token));
    st = add_head(list, bearer);
    explicit_bzero(bearer, strlen(bearer));
    mb_free(bearer);
    return st;
}

static void set_body(struct exchange *x, const char *method)
{
    CURL *c = x->curl;
    const bool has = x->q->source != NULL || x->q->body != NULL;

    if (strcmp(method, "HEAD") == 0)
        curl_easy_setopt(c, CURLOPT_NOBODY, 1L);
    else if (has || strcmp(method, "POST") == 0 || strcmp(method, "PUT") == 0) {
        curl_easy_setopt(c, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(
            c, CURLOPT_INFILESIZE_LARGE,
            (curl_off_t)(x->q->source != NULL ? x->q->source->size : (int64_t)x->q->body_n));
        curl_easy_setopt(c, CURLOPT_READFUNCTION, on_send);
        curl_easy_setopt(c, CURLOPT_READDATA, x);
        curl_easy_setopt(c, CURLOPT_SEEKFUNCTION, on_seek);
        curl_easy_setopt(c, CURLOPT_SEEKDATA, x);
        curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, method);
    } else if (strcmp(method, "GET") != 0) {
        curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, method);
    }
}

static void set_limits(struct exchange *x)
{
    const mb_fetch_options *o = &x->f->o;
    const long piece =
        o->rate > 0 && o->rate < 65536 ? (o->rate > 4096 ? (long)o->rate / 4 : 1024) : 65536;

    curl_easy_setopt(x->curl, CURLOPT_BUFFERSIZE, piece);
    curl_easy_setopt(x->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(x->curl, CURLOPT_CONNECTTIMEOUT_MS, (long)(1000.0 * o->connect_seconds));
    curl_easy_setopt(x->curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(x->curl, CURLOPT_LOW_SPEED_TIME,
                     o->stall_seconds < 1.0 ? 1L : (long)o->stall_seconds);
    curl_easy_setopt(x->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(x->curl, CURLOPT_FOLLOWLOCATION, 0L); /* by us, who know whose token it is */
    curl_easy_setopt(x->curl, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(x->curl, CURLOPT_USERAGENT, "mbuyu/" MB_VERSION);
    /* compressed answers are undone even where none was asked for */
    curl_easy_setopt(x->curl, CURLOPT_ACCEPT_ENCODING, x->q->plain ? "identity" : "");
    if (certificates() != NULL)
        curl_easy_setopt(x->curl, CURLOPT_CAINFO, certificates());
}

static void set_callbacks(struct exchange *x)
{
    curl_easy_setopt(x->curl, CURLOPT_HEADERFUNCTION, on_head);
    curl_easy_setopt(x->curl, CURLOPT_HEADERDATA, x);
    curl_easy_setopt(x->curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(x->curl, CURLOPT_WRITEDATA, x);
    curl_easy_setopt(x->curl, CURLOPT_OPENSOCKETFUNCTION, on_socket);
    curl_easy_setopt(x->curl, CURLOPT_OPENSOCKETDATA, x);
    curl_easy_setopt(x->curl, CURLOPT_ERRORBUFFER, x->error);
}

/* What curl found, as a sentence. */
static mb_status say(struct exchange *x, CURLcode code)
{
    const char *what = x->q->what, *url = x->a->url;

    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
        return MB_RAISE(MB_ENET, "%s: the name in %s is not known here (no network, or no DNS)",
                        what, url);
    case CURLE_COULDNT_RESOLVE_PROXY:
        return MB_RAISE(MB_ENET, "%s: the name of the proxy is not known here", what);
    case CURLE_COULDNT_CONNECT:
        return MB_RAISE(MB_ENET, "%s: %s cannot be reached (%s)", what, url, x->error);
    case CURLE_OPERATION_TIMEDOUT:
        return MB_RAISE(MB_ENET, "%s: nothing came from %s for %.0f seconds", what, url,
                        x->got > 0 || x->a->heads[0] != '\0' ||
                                x->f->o.stall_seconds > x->f->o.connect_seconds
                            ? x->f->o.stall_seconds
                            : x->f->o.connect_seconds);
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_HTTP2_STREAM:
        return MB_RAISE(MB_ENET, "%s: the connection to %s was cut after %lld bytes", what, url,
                        (long long)x->got);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
        x->a->hopeless = true;
        return MB_RAISE(MB_ENET,
                        "%s: the certificate of %s is not one to trust (%s): a login page of the "
                        "network, a wrong clock, or a missing SSL_CERT_FILE",
                        what, url, x->error);
    default:
        return MB_RAISE(MB_ENET, "%s: %s: %s", what, url,
                        x->error[0] != '\0' ? x->error : curl_easy_strerror(code));
    }
}

static void read_waits(struct exchange *x)
{
    curl_off_t after = 0;

    curl_easy_getinfo(x->curl, CURLINFO_RETRY_AFTER, &after);
    x->a->wait = after > 0 ? (double)after : 0.0;
    mb_fetch_read_limit(x->a);
}

static mb_status perform(struct exchange *x, const char *method, const char *url, bool with_token,
                         bool at_home)
{
    struct curl_slist *heads = NULL;
    CURLcode code;
    mb_status st;

    x->private_only = with_token && strncmp(x->a->url, "http:", 5) == 0;
    curl_easy_setopt(x->curl, CURLOPT_URL, url);
    set_limits(x);
    set_callbacks(x);
    set_body(x, method);
    if (x->private_only)
        curl_easy_setopt(x->curl, CURLOPT_PROXY, "");
    MB_TRY_GOTO(make_heads(x, with_token, at_home, &heads), st, done);
    curl_easy_setopt(x->curl, CURLOPT_HTTPHEADER, heads);
    code = curl_easy_perform(x->curl);
    read_status(x);
    read_waits(x);
    st = x->st;
    if (st == MB_OK && code != CURLE_OK && !x->enough) {
        st = say(x, code);
    } else if (st == MB_OK && is_ok(x->a) && x->q->sink != NULL && !x->begun) {
        st = begin(x);
    }
done:
    curl_slist_free_all(heads);
    return st;
}

/* ---- redirects ----------------------------------------------------------------------------- */

static bool is_redirect(const mb_fetch_answer *a)
{
    return a->status == 301 || a->status == 302 || a->status == 303 || a->status == 307 ||
           a->status == 308;
}

/* `url` becomes where the answer's Location leads from it. */
static mb_status follow(const mb_fetch_request *q, mb_fetch_answer *a, char *url, size_t size)
{
    char *location = NULL, *full = NULL;
    CURLU *u = curl_url();
    mb_status st = MB_OK;

    MB_TRY_GOTO(mb_alloc(MB_URL_MAX, "an address", (void **)&location), st, done);
    if (!mb_fetch_head(a, "location", location, MB_URL_MAX))
        MB_TRY_GOTO(MB_RAISE(MB_ENET, "%s: %s answered %d without saying where to go", q->what,
                             a->url, a->status),
                    st, done);
    if (u == NULL || curl_url_set(u, CURLUPART_URL, url, 0) != CURLUE_OK ||
        curl_url_set(u, CURLUPART_URL, location, 0) != CURLUE_OK ||
        curl_url_get(u, CURLUPART_URL, &full, 0) != CURLUE_OK || strlen(full) >= size)
        MB_TRY_GOTO(MB_RAISE(MB_ENET, "%s: %s redirects to what is no address", q->what, a->url),
                    st, done);
    if (strncasecmp(url, "https:", 6) == 0 && strncasecmp(full, "https:", 6) != 0)
        MB_TRY_GOTO(MB_RAISE(MB_ENET, "%s: %s redirects from https to what is not encrypted",
                             q->what, a->url),
                    st, done);
    snprintf(url, size, "%s", full);
done:
    a->hopeless = st != MB_OK;
    curl_free(full);
    curl_url_cleanup(u);
    mb_free(location);
    return st;
}

static mb_status set_url(mb_fetch_answer *a, const char *url)
{
    mb_free(a->url);
    a->url = NULL;
    return mb_strndup(url, strcspn(url, "?#"), &a->url);
}

static const char *method_of(const mb_fetch_request *q)
{
    const bool has = q->source != NULL || q->body != NULL;

    return q->method != NULL ? q->method : has ? "POST" : "GET";
}

static mb_status exchange(mb_fetcher *f, const mb_fetch_request *q, const char *url,
                          const char *home, bool *redirected, mb_fetch_answer *a)
{
    struct exchange x = {.f = f, .q = q, .a = a};
    char origin[MB_ORIGIN_MAX];
    struct line *line = NULL;
    bool same;

    MB_TRY(set_url(a, url));
    MB_TRY(mb_fetch_origin(url, origin, sizeof origin));
    same = strcmp(origin, home) == 0;
    MB_REQUIRE(same || strcmp(method_of(q), "GET") == 0 || strcmp(method_of(q), "HEAD") == 0,
               MB_ENET, "%s: another host, %s, asks for what is sent; it was not sent", q->what,
               a->url);
    if (a->heads == NULL)
        MB_TRY(mb_alloc(MOST_HEADS + 2, "headers", (void **)&a->heads));
    a->heads[0] = '\0';
    a->status = 0;
    a->n = 0;
    mb_free(a->body);
    a->body = NULL;
    MB_TRY(take_line(f, &line));
    x.curl = line->curl;
    const mb_status st =
        perform(&x, method_of(q), url,
                f->token != NULL && !q->no_token && strcmp(origin, f->origin) == 0, same);
    give_line(f, line);
    MB_TRY(st);
    *redirected = is_redirect(a);
    return MB_OK;
}

static mb_status chain(mb_fetcher *f, const mb_fetch_request *q, char *urls, mb_fetch_answer *a)
{
    char home[MB_ORIGIN_MAX], *url = urls;
    bool redirected;

    MB_REQUIRE(strlen(q->url) < MB_URL_MAX, MB_EARG, "%s: an address of more than %d bytes",
               q->what, MB_URL_MAX);
    snprintf(url, MB_URL_MAX, "%s", q->url);
    MB_TRY(mb_fetch_origin(url, home, sizeof home));
    for (;;) {
        char *next = url + MB_URL_MAX;

        MB_TRY(exchange(f, q, url, home, &redirected, a));
        if (!redirected)
            return MB_OK;
        a->hopeless = ++a->redirects > MOST_REDIRECTS;
        MB_REQUIRE(!a->hopeless, MB_ENET, "%s: more than %d redirects, the last from %s", q->what,
                   MOST_REDIRECTS, a->url);
        memcpy(next, url, MB_URL_MAX);
        MB_TRY(follow(q, a, next, MB_URL_MAX));
        for (const char *before = urls; before < next; before += MB_URL_MAX) {
            a->hopeless = strcmp(before, next) == 0;
            MB_REQUIRE(!a->hopeless, MB_ENET, "%s: %s redirects in a circle", q->what, a->url);
        }
        url = next;
    }
}

mb_status mb_fetch_once(mb_fetcher *f, const mb_fetch_request *q, mb_fetch_answer *a)
{
    char *urls = NULL;
    mb_status st;

    mb_fetch_answer_release(a);
    a->length = -1;
    MB_TRY(mb_alloc((MOST_REDIRECTS + 2) * (size_t)MB_URL_MAX, "addresses", (void **)&urls));
    st = chain(f, q, urls, a);
    mb_free(urls);
    return st;
}

mb_status mb_fetch_origin(const char *url, char *text, size_t size)
{
    char *scheme = NULL, *host = NULL, *port = NULL, *user = NULL;
    CURLU *u = curl_url();
    mb_status st = MB_OK;

    if (u == NULL || url == NULL || curl_url_set(u, CURLUPART_URL, url, 0) != CURLUE_OK ||
        curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
        curl_url_get(u, CURLUPART_HOST, &host, 0) != CURLUE_OK ||
        curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) != CURLUE_OK ||
        (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0))
        st = MB_RAISE(MB_EARG, "%.*s is no address that begins with https:// or http://",
                      url != NULL ? (int)strcspn(url, "?#@") : 7, url != NULL ? url : "nothing");
    else if (curl_url_get(u, CURLUPART_USER, &user, 0) == CURLUE_OK)
        st = MB_RAISE(MB_EARG, "an address at %.100s has a user name in it; use a token", host);
    else if (snprintf(text, size, "%s://%s:%s", scheme, host, port) >= (int)size)
        st = MB_RAISE(MB_EARG, "an address whose host has more than %zu bytes", size);
    for (char *c = text; st == MB_OK && *c != '\0'; c++)
        *c = (char)tolower((unsigned char)*c);
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_free(user);
    curl_url_cleanup(u);
    return st;
}
