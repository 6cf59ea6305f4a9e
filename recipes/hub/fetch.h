/* recipes/hub/fetch.h - requests over HTTP: the only user of libcurl.
 *
 *     MB_TRY(mb_fetcher_new(&(mb_fetch_options){.endpoint = endpoint, .token = token}, &f));
 *     mb_fetch_answer a = {0};
 *     st = mb_fetch(f, &(mb_fetch_request){.url = url, .what = "the listing"}, &a);
 *     ... a.status, a.body, a.n, mb_fetch_head(&a, "link") ...
 *     mb_fetch_answer_release(&a);
 *
 * mb_fetch is patient: it asks again after a failure of the network, 408, 429 and 5xx, as long after
 * as the answer says (Retry-After, RateLimit) or doubles its pause, and makes one sentence of any
 * answer that is not 2xx. mb_fetch_once does neither, for callers that count for themselves.
 *
 * The token goes to the origin (scheme, host, port) of `endpoint` and nowhere else, whatever an
 * answer redirects to; over plain http only when that is this machine or a private address (looked
 * at when connecting, so that a name cannot lie), and then not through a proxy. Redirects are followed
 * at most 10 times, in no circle, never from https to http; a body is sent again to the same origin
 * only. Other requests use the proxies of the environment (HTTPS_PROXY, http_proxy, ALL_PROXY,
 * NO_PROXY; and these in small letters); certificates are checked against the system's or SSL_CERT_FILE, REQUESTS_CA_BUNDLE or
 * CURL_CA_BUNDLE. No token appears in any sentence or log line, nor does a URL's query, which may
 * hold a signature.
 *
 * Errors: MB_ENET (no answer, a broken one, 4xx and 5xx without another meaning), MB_EDENIED (401,
 * 403, a gated repository), MB_EARG (404: a name that is wrong; an address that is none), MB_EDATA
 * (answers that are not what was asked for: a login page, more bytes than allowed), MB_EIO, MB_ENOMEM.
 *
 * A fetcher may be used by several threads at once; connections are kept and shared among requests.
 */
#ifndef MB_RECIPES_HUB_FETCH_H
#define MB_RECIPES_HUB_FETCH_H

#include <stdint.h>

#include "core/status.h"

typedef struct mb_fetcher mb_fetcher;

typedef struct mb_fetch_options {
    const char *endpoint;   /* "https://huggingface.co": whose token it is; copied */
    const char *token;      /* NULL or "": none; copied */
    double connect_seconds; /* 0: 15 */
    double stall_seconds;   /* without a byte either way; 0: HF_HUB_DOWNLOAD_TIMEOUT, else 30 */
    double first_pause;     /* seconds after the first failure, doubled each time; 0: 1 */
    double longest_pause;   /* what is waited at most, also when asked to; 0: 300 */
    int tries;              /* of one request by mb_fetch; 0: 5 */
    int64_t rate;           /* bytes a second of all requests together, both ways; 0: no limit */
} mb_fetch_options;

typedef struct mb_fetch_answer {
    int status; /* of the last answer in a chain of redirects; 0: none came */
    char *body; /* with a zero after it; of all answers without a sink, and the first 64 KiB of
                    those with a sink that are not 2xx */
    size_t n;
    char *heads;    /* "name: value\n" of the last answer, names in lower case; NULL: none */
    char *url;      /* where the last answer came from, without query; for messages */
    int64_t length; /* Content-Length; -1: not said */
    int redirects;
    double wait;   /* seconds the answer asks to wait before the next request; 0: not said */
    bool hopeless; /* a failure that another try would not change: certificate, circle, address */
} mb_fetch_answer;

/* What gets a body as it comes. `begin` (may be NULL) sees status and heads before the first byte of
 * a 2xx answer and may refuse it. A failure of either ends the transfer and is returned as it is. */
typedef struct mb_fetch_sink {
    mb_status (*begin)(void *arg, const mb_fetch_answer *a);
    mb_status (*write)(void *arg, const void *data, size_t n);
    void *arg;
} mb_fetch_sink;

/* What gives a body as it is sent: at most n bytes at `at` (which goes back when a request is made
 * again); *got 0 is an error of the source. */
typedef struct mb_fetch_source {
    mb_status (*read)(void *arg, int64_t at, void *data, size_t n, size_t *got);
    void *arg;
    int64_t size; /* bytes in all, announced as Content-Length */
} mb_fetch_source;

typedef struct mb_fetch_request {
    const char *method;       /* NULL: GET, or POST with a body */
    const char *url;          /* absolute */
    const char *what;         /* for messages: "the listing of ORG/NAME" */
    const char *const *heads; /* "Name: value", ended by NULL; may be NULL */
    const void *body;         /* of body_n bytes; borrowed; or */
    size_t body_n;
    const mb_fetch_source *source; /* a body too large for memory */
    const mb_fetch_sink *sink;     /* NULL: the body is kept in the answer */
    size_t most;                   /* bytes kept in the answer; 0: 16 MiB. More is MB_EDATA */
    bool plain;      /* no compression: ask for bytes as they are (Accept-Encoding: identity) */
    bool no_token;   /* not even to the endpoint */
    bool any_status; /* mb_fetch: 3xx and 4xx (but 408, 429) are the caller's too */
} mb_fetch_request;

mb_status mb_fetcher_new(const mb_fetch_options *o, mb_fetcher **out) MB_MUST_USE;
void mb_fetcher_free(mb_fetcher *f); /* NULL is allowed; no request may be under way */

/* One request with its redirects. MB_OK: an answer came whole, whatever its status. */
mb_status mb_fetch_once(mb_fetcher *f, const mb_fetch_request *q, mb_fetch_answer *a) MB_MUST_USE;
/* The same, again and again, until it is 2xx or there is no hope. A sink must start afresh in
 * `begin`. */
mb_status mb_fetch(mb_fetcher *f, const mb_fetch_request *q, mb_fetch_answer *a) MB_MUST_USE;
void mb_fetch_answer_release(mb_fetch_answer *a); /* and makes it {0} */

/* A header of the answer (name in lower case) into `text`; false when there is none or it does not
 * fit. Of several the first. */
bool mb_fetch_head(const mb_fetch_answer *a, const char *name, char *text, size_t size);
/* MB_OK for 2xx, else one sentence that says what the status (and the hub's X-Error-Code) means. */
mb_status mb_fetch_judge(const mb_fetch_request *q, const mb_fetch_answer *a) MB_MUST_USE;
/* Would the same request be worth another try? `st` is what mb_fetch_once returned. */
bool mb_fetch_may_pass(mb_status st, const mb_fetch_answer *a);
/* Seconds to wait after the n-th failure in a row (from 1); < 0: the answer asks for more than
 * longest_pause, so that it is better to stop. */
double mb_fetch_pause(const mb_fetcher *f, const mb_fetch_answer *a, int n);
void mb_fetch_sleep(double seconds);
/* A page for people where an answer for programs was expected: the mark of a captive portal. */
bool mb_fetch_is_page(const mb_fetch_answer *a, const void *data, size_t n);

/* HF_ENDPOINT or https://huggingface.co without a slash at the end, into `text`. MB_EARG: no URL. */
mb_status mb_fetch_endpoint(char *text, size_t size) MB_MUST_USE;
/* The token: `given`, else HF_TOKEN, HUGGING_FACE_HUB_TOKEN, or what the file HF_TOKEN_PATH (or
 * $HF_HOME/token) holds. *out is owned by the caller, NULL when there is none. MB_EARG: one with
 * characters that no header may have. */
mb_status mb_fetch_token(const char *given, char **out) MB_MUST_USE;
/* A part of a path as a URL has it: all but letters, digits and -._~ (and '/' when `slashes`) as
 * %XX. MB_EARG when it does not fit. */
mb_status mb_fetch_escape(const char *part, bool slashes, char *text, size_t size) MB_MUST_USE;
/* "https://host:port" of a URL in `text`, the port always said. MB_EARG: not http or https, a user
 * name in it, or no URL. */
mb_status mb_fetch_origin(const char *url, char *text, size_t size) MB_MUST_USE;

#endif
