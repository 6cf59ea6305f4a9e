/* tests/unit/test_jinja.c - the template language: what it writes, where bytes come from, what it
 * refuses, its limits. tests/peers/templates.py holds it against Jinja2 itself. */
#include <dirent.h>
#include <omp.h>

#include "core/rng.h"
#include "data_test.h"
#include "recipes/data/template.h"
#include "recipes/jinja/jinja.h"
#include "tests/long.h"

static const char talk[] =
    "{\"messages\":[{\"role\":\"user\",\"content\":\"  Hi <|x|> \"},"
    "{\"role\":\"assistant\",\"content\":\"A\\nB\",\"tool_calls\":[{\"function\":{\"name\":\"f\","
    "\"arguments\":{\"a\":[1,2.5,null,true],\"b\":\"\\u00e9\"}}}]}],\"n\":3,\"s\":\"abc\"}";

/* Renders with `talk`; the text is owned by the caller, NULL when it failed. */
static char *render(const char *source, size_t n, const mb_jinja_limits *limits, uint16_t **origin)
{
    mb_json_doc *doc;
    mb_jinja *t;
    mb_jinja_run *r;
    mb_jinja_text page;
    char *text = NULL;

    if (mb_jinja_parse(source, n, "t", &t) != MB_OK)
        return NULL;
    OK(mb_json_parse(talk, sizeof talk - 1, "talk", 0, MB_EBUG, &doc));
    OK(mb_jinja_run_new(t, limits, &r));
    mb_jinja_set_now(r, 0);
    for (mb_json_it it = mb_json_first(mb_json_root(doc)); mb_json_more(&it); mb_json_next(&it)) {
        mb_jinja_value v;

        OK(mb_jinja_json(r, it.value, 7, &v));
        OK(mb_jinja_set(r, it.key, v));
    }
    if (mb_jinja_render(r, &page) == MB_OK) {
        OK(mb_strndup(page.text, page.n, &text));
        if (origin != NULL) {
            OK(mb_alloc_array(page.n + 1, sizeof **origin, "origins", (void **)origin));
            memcpy(*origin, page.origin, page.n * sizeof **origin);
        }
    }
    mb_jinja_run_free(r);
    mb_jinja_free(t);
    mb_json_free(doc);
    return text;
}

static void templates_write_what_jinja2_writes(void **state)
{
    static const struct {
        const char *source, *want;
    } cases[] = {
        {"{% for m in messages %}{{ m.role }}:{{ m.content | trim }};{% endfor %}",
         "user:Hi <|x|>;assistant:A\nB;"},
        {"{{ messages[1].tool_calls[0].function.arguments | tojson }}",
         "{\"a\": [1, 2.5, null, true], \"b\": \"\xc3\xa9\"}"},
        {"  {% if n == 3 %}\n yes\n  {% endif %}\nend\n", " yes\nend"},
        {"{{ messages[0].nothing }}{{ nobody }}|{{ nobody | default('d') }}", "|d"},
        {"{% set ns = namespace(i=0) %}{% for c in s %}{% set ns.i = ns.i + 1 %}{% endfor %}{{ ns.i }}",
         "3"},
        {"{% macro f(a, b='x') %}{{ a }}{{ b }}{% endmacro %}{{ f(1) ~ f(b=2, a=3) }}", "1x32"},
        {"{% for i in range(9) %}{% if i == 2 %}{% continue %}{% elif i > 4 %}{% break %}{% endif %}"
         "{{ i }}{% endfor %}",
         "0134"},
        {"{{ 's'.join(['a', 'b']) }}{{ s[::-1] }}{{ '%d' % n }}{{ 7 // 2 }}{{ 1e16 }}",
         "asbcba331e+16"},
        {"{{ ('%9999d' % 7) | length }}{{ ('%.600f' % 1) | length }}{{ '%3d|' % 7 }}",
         "9999602  7|"},
        {"{{ strftime_now('%Y') }}", "1970"},
        {"{% raw %}{{ x }}{% endraw %}{# no #}", "{{ x }}"},
        {"", ""},
    };

    setenv("TZ", "UTC", 1);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *got = render(cases[i].source, strlen(cases[i].source), NULL, NULL);

        if (got == NULL)
            fail_msg("%s: %s", cases[i].source, mb_status_sentence());
        assert_string_equal(got, cases[i].want);
        mb_free(got);
    }
}

static void bytes_know_where_they_come_from(void **state)
{
    static const struct {
        const char *source, *want; /* a d where a byte is data, a g in {% generation %} */
    } cases[] = {
        {"<{{ s }}>{{ s[1:] | upper }}{{ 'x' ~ s }}", ".ddd.dd.ddd"},
        {"{{ s | tojson }}{{ ('a' + s).replace('b', '-') }}", ".ddd..d.d"},
        {"{{ 'a%sb' % s }}{{ [s, 'x'] | join('+') }}{{ s.split('b')[0] }}", ".ddd.ddd..d"},
        {"{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(s) }}{% set q %}{{ s }}!{% endset %}{{ q }}",
         ".ddd.ddd."},
        {"a{% generation %}b{{ s[0] }}{% endgeneration %}c", ".gD."},
        {"{{ s == 'abc' }}{{ s | length }}{{ n }}", "......"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint16_t *origin;
        char *got = render(cases[i].source, strlen(cases[i].source), NULL, &origin);

        assert_non_null(got);
        for (size_t k = 0; got[k] != '\0'; k++) {
            const bool data = (origin[k] & MB_JINJA_MOST_ORIGINS) == 7;

            got[k] = origin[k] & MB_JINJA_GENERATED ? (data ? 'D' : 'g') : data ? 'd' : '.';
        }
        assert_string_equal(got, cases[i].want);
        mb_free(got);
        mb_free(origin);
    }
}

static void faults_are_sentences_with_a_line(void **state)
{
    static const struct {
        const char *source, *says;
    } cases[] = {
        {"a\n{{ nobody.x }}", "t:2: \"nobody\" is undefined"},
        {"{{ messages.x.y }}", "t:1: \"x of a list\" is undefined"},
        {"\n\n{{ 1 + s }}", "t:3: int and str have no sum"},
        {"{{ raise_exception('roles must ' ~ s) }}", "t:1: the template refuses: roles must abc"},
        {"{{ messages.append(1) }}", "t:1: append would change a list, and values of a template"},
        {"{% if n %}\n", "t:1: the block that begins here is never closed by endif"},
        {"{% include 'x' %}", "t:1: the block {% include %} is not known here"},
        {"{{ s | nope }}", "t:1: there is no filter \"nope\""},
        {"{{ (1 }}", "t:1: an expression"},
        {"{{ 'x }}", "t:1: a string is not closed by '"},
        {"{{ 1 | tojson(indent=999) }}", "t:1: tojson with an indent of 999"},
        {"{{ s.__class__ }}{{ s.__class__.x }}", "t:1: \"__class__ of a str\" is undefined"},
        {"{{ 99999999999999999999 }}", "t:1: the number 99999999999999999999... cannot be read"},
        {"{{ 9223372036854775807 + 1 }}", "t:1: an integer is too large"},
        {"{% break %}", "t:1: break stands outside a loop"},
        {"\xff", "t:1: the template is not UTF-8 text"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_null(render(cases[i].source, strlen(cases[i].source), NULL, NULL));
        if (strstr(mb_status_sentence(), cases[i].says) == NULL && i != 8)
            fail_msg("%s\n  says: %s\n  not:  %s", cases[i].source, mb_status_sentence(),
                     cases[i].says);
        mb_status_clear();
    }
}

static void a_template_cannot_run_away(void **state)
{
    static const struct {
        const char *source, *says;
    } cases[] = {
        {"{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}", "steps"},
        {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "levels deep"},
        {"{{ 'x' * 999999999 }}", "MiB"},
        {"{{ ['x' * 99999] * 99999 | length }}", ""},
        {"{% set ns = namespace(s='x' * 9999) %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}"
         "{% endfor %}",
         "MiB"},
        {"{% for i in range(99999) %}{{ s * 99 }}{% endfor %}", "MiB"},
        {"{% for n in [1] recursive %}{{ loop([1]) }}{% endfor %}", "levels deep"},
        {"{% set x %}{{ range(99999) | list | tojson }}{% endset %}{{ x * 9999 }}", "MiB"},
    };
    const mb_jinja_limits few = {.steps = 9999};
    const mb_jinja_limits limits = {.memory = 32 << 20, .output = 1 << 20, .steps = 1000000};
    char deep[4000];

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_null(
            render(cases[i].source, strlen(cases[i].source), i == 0 ? &few : &limits, NULL));
        if (strstr(mb_status_sentence(), cases[i].says) == NULL)
            fail_msg("%s: %s", cases[i].source, mb_status_sentence());
        mb_status_clear();
    }
    memset(deep, '(', sizeof deep);
    memcpy(deep, "{{", 2);
    assert_null(render(deep, sizeof deep, NULL, NULL));
    mb_status_clear();
    memset(deep, '-', sizeof deep);
    memcpy(deep, "{{", 2);
    assert_null(render(deep, sizeof deep, NULL, NULL));
    assert_non_null(strstr(mb_status_sentence(), "nested more than"));
    mb_status_clear();
}

static void several_threads_render_one_template(void **state)
{
    const char source[] = "{% for m in messages %}{{ m.role ~ x }}{% endfor %}";
    mb_jinja *t;
    int wrong = 0;

    OK(mb_jinja_parse(source, sizeof source - 1, "t", &t));
#pragma omp parallel for num_threads(4) reduction(+ : wrong)
    for (int i = 0; i < 400; i++) {
        mb_jinja_run *r = NULL;
        mb_jinja_value list, m, v;
        mb_jinja_text page;
        char want[60];

        snprintf(want, sizeof want, "u%du%d", i, i);
        if (mb_jinja_run_new(t, NULL, &r) != MB_OK || mb_jinja_list(r, &list) != MB_OK ||
            mb_jinja_dict(r, &m) != MB_OK || mb_jinja_string(r, "u", 1, 1, &v) != MB_OK ||
            mb_jinja_put(r, m, "role", 1, v) != MB_OK || mb_jinja_append(r, list, m) != MB_OK ||
            mb_jinja_append(r, list, m) != MB_OK || mb_jinja_set(r, "messages", list) != MB_OK ||
            mb_jinja_set(r, "x", mb_jinja_int(i)) != MB_OK || mb_jinja_render(r, &page) != MB_OK)
            wrong++;
        else
            wrong += page.n != strlen(want) || memcmp(page.text, want, page.n) != 0;
        mb_jinja_run_free(r);
    }
    assert_int_equal(wrong, 0);
    mb_jinja_free(t);
}

/* Pieces that a mutated template is made of. */
static const char *const pieces[] = {
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    "-",
    "+",
    "'",
    "\"",
    "\\",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "|",
    ".",
    ",",
    ":",
    "=",
    "~",
    "*",
    "//",
    "**",
    "%",
    "\n",
    " ",
    " if ",
    " else ",
    " for ",
    " in ",
    " is ",
    " not ",
    " set ",
    "endfor",
    "endif",
    "endset",
    "macro m()",
    "endmacro",
    "messages",
    "loop.",
    "tojson",
    "s",
    "n",
    "9",
    "-1",
    "0x7fffffffffffffff",
    "join",
    "namespace()",
    "caller()",
    "generation",
    "endgeneration",
    "\xc3\xa9",
    "\xff",
    "m.content",
    "[::-1]",
    "split('b')",
    "map('upper')",
    "|sort",
    "recursive",
    "%s",
    "|indent(3)",
    "*args",
    "**kw",
    "call m()",
    "endcall",
    "filter upper",
    "endfilter",
};

static uint64_t random_below(uint64_t *at, uint64_t n)
{
    *at = *at * 6364136223846793005u + 1442695040888963407u;
    return (*at >> 33) % n;
}

static void mutate(char *text, size_t *n, size_t most, uint64_t *rng)
{
    const size_t at = random_below(rng, *n + 1);
    const char *piece = pieces[random_below(rng, sizeof pieces / sizeof pieces[0])];
    const size_t length = strlen(piece);
    size_t cut = random_below(rng, 12);

    if (random_below(rng, 3) == 0 && cut <= *n - at) { /* something goes */
        memmove(text + at, text + at + cut, *n - at - cut);
        *n -= cut;
    } else if (*n + length <= most) { /* something comes in between */
        memmove(text + at + length, text + at, *n - at);
        memcpy(text + at, piece, length);
        *n += length;
    }
}

/* Every named template, changed at random: a text or one sentence, and nothing else, comes of it.
 * The sanitizers of scripts/test.sh --long look on. */
static void changed_templates_give_a_text_or_a_sentence(void **state)
{
    const int rounds = is_long_run() ? 3000 : 60;
    const mb_jinja_limits limits = {.memory = 8 << 20, .output = 1 << 18, .steps = 100000};
    char names[2000], *save = NULL;
    uint64_t rng = 5;
    int good = 0, bad = 0;

    snprintf(names, sizeof names, "%s", mb_chat_names());
    for (char *name = strtok_r(names, ", ", &save); name != NULL;
         name = strtok_r(NULL, ", ", &save)) {
        const char *source = mb_chat_named(name);
        char text[20000];

        assert_non_null(source);
        for (int i = 0; i < rounds; i++) {
            size_t n = strlen(source);
            char *got;

            memcpy(text, source, n);
            for (uint64_t k = 1 + random_below(&rng, 4); k > 0; k--)
                mutate(text, &n, sizeof text, &rng);
            got = render(text, n, &limits, NULL);
            good += got != NULL;
            bad += got == NULL;
            if (got == NULL)
                assert_true(strncmp(mb_status_sentence(), "t:", 2) == 0 ||
                            strstr(mb_status_sentence(), "template takes more than") != NULL);
            mb_status_clear();
            mb_free(got);
        }
    }
    assert_true(good > 100);
    assert_true(bad > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(templates_write_what_jinja2_writes),
        cmocka_unit_test(bytes_know_where_they_come_from),
        cmocka_unit_test(faults_are_sentences_with_a_line),
        cmocka_unit_test(a_template_cannot_run_away),
        cmocka_unit_test(several_threads_render_one_template),
        cmocka_unit_test(changed_templates_give_a_text_or_a_sentence),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
