/* tests/bench/bench_scheduler.c - tokens per second of a scheduler by the number of asks at a time.
 *
 *     bench_scheduler MODEL [tokens [threads]]
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "core/cpu/cpu.h"
#include "core/log.h"
#include "recipes/serve/scheduler.h"
#include "recipes/train/session.h"

enum { PROMPT = 48 };

static atomic_int open_asks;

static void on_end(void *arg, const mb_ask_usage *usage, const char *failure)
{
    (void)arg;
    (void)usage;
    if (failure != NULL)
        fprintf(stderr, "%s\n", failure);
    atomic_fetch_sub(&open_asks, 1);
}

static double processor_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static mb_status ask(mb_scheduler *s, int clients, int64_t tokens, int round)
{
    const mb_scheduler_stats before = mb_scheduler_read(s);
    const double start = mb_clock(), worked = processor_seconds();

    for (int i = 0; i < clients; i++) {
        int32_t prompt[PROMPT];
        mb_submitted got;
        mb_ask a = {.client = (uint64_t)i,
                    .prompt = prompt,
                    .n_prompt = PROMPT,
                    .n = 1,
                    .max_new = tokens,
                    .pick = {.temperature = 1.0, .top_p = 1.0, .repetition_penalty = 1.0},
                    .top_logprobs = -1,
                    .prompt_logprobs = -1,
                    .on_end = on_end};

        for (int k = 0; k < PROMPT; k++)
            prompt[k] = 100 + (round * 7919 + i * 131 + k * 37) % 4000;
        atomic_fetch_add(&open_asks, 1);
        MB_TRY(mb_scheduler_submit(s, &a, &got));
    }
    while (atomic_load(&open_asks) > 0)
        usleep(1000);
    const double seconds = mb_clock() - start, work = processor_seconds() - worked;
    usleep(5000);
    const mb_scheduler_stats t = mb_scheduler_read(s);
    printf("%2d asks: %7.1f tokens/s in all, %6.1f each; %.2f ms a forward; %.2f ms of processor a "
           "token\n",
           clients, (double)(clients * tokens) / seconds, (double)tokens / seconds,
           1e3 * (t.answer_seconds - before.answer_seconds) / (double)(tokens - 1),
           1e3 * work / (double)(clients * tokens));
    return MB_OK;
}

static mb_status run(const char *path, int64_t tokens, int threads)
{
    static const int clients[] = {1, 8, 32};
    mb_session_options o = {.path = path, .keep_blocks = true, .engine = {.threads = threads}};
    mb_tokenizer *tok;
    mb_engine *e;
    mb_scheduler *s;
    char text[300];
    int number;

    MB_TRY(mb_cpu_init());
    o.engine.max_positions = 1024;
    MB_TRY(mb_tokenizer_load(path, &tok));
    MB_TRY(mb_session_open(&o, &e, NULL));
    MB_TRY(mb_scheduler_new(&(mb_scheduler_options){.n_seq = 32, .queue = 64}, &s));
    MB_TRY(mb_scheduler_add(
        s,
        &(mb_served){
            .engine = e, .tokenizer = tok, .context = 1024, .cache_tokens = 16384, .share = -1},
        &number));
    mb_scheduler_describe(s, number, text, sizeof text);
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("%s\n", text);
    MB_TRY(mb_scheduler_start(s));
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 3; i++)
            MB_TRY(ask(s, clients[i], tokens, round));
    mb_scheduler_free(s);
    mb_engine_free(e);
    mb_tokenizer_free(tok);
    return MB_OK;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "bench_scheduler MODEL [tokens [threads]]\n");
        return 2;
    }
    if (run(argv[1], argc > 2 ? atoi(argv[2]) : 64, argc > 3 ? atoi(argv[3]) : 2) != MB_OK) {
        fprintf(stderr, "%s\n", mb_status_sentence());
        return 1;
    }
    return 0;
}
