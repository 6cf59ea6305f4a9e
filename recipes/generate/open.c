/* recipes/generate/open.c - see recipes/generate/open.h. */
#include "recipes/generate/open.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/cpu/cpu.h"
#include "core/path.h"
#include "recipes/config/model_path.h"
#include "recipes/generate/ends.h"
#include "recipes/train/device.h"
#include "recipes/train/session.h"

static mb_status read_positions(mb_writer *w)
{
    mb_model_config c;
    mb_json_doc *doc = NULL;
    mb_status st;

    MB_TRY(mb_model_config_doc(w->model, &doc));
    st = mb_model_config_parse(doc, MB_HEAD_CAUSAL_LM, &c);
    mb_json_free(doc);
    if (st == MB_OK)
        w->positions = c.positions;
    return st;
}

/* ---- open, load, close -------------------------------------------------------------------- */

mb_status mb_writer_open(mb_recipe *r, mb_writer *w)
{
    *w = (mb_writer){.recipe = r};
    MB_TRY(mb_recipe_follow_adapter(r));
    MB_TRY(mb_recipe_check_model(r));
    MB_TRY(mb_cpu_init());
    w->model = r->model_name_or_path;
    w->adapter = r->adapter_path;
    MB_TRY(read_positions(w));
    MB_TRY(mb_tokenizer_load(w->model, &w->tokenizer));
    const mb_render_options o = {.tokenizer = w->tokenizer,
                                 .chat_template = r->chat_template,
                                 .system_prompt = r->system_prompt,
                                 .n_values = r->chat_template_kwargs.n,
                                 .value_name = r->chat_template_kwargs.name,
                                 .value = r->chat_template_kwargs.value,
                                 .add_bos = (int)r->add_bos,
                                 .add_eos = 0};
    MB_TRY(mb_renderer_new(&o, &w->renderer));
    return mb_answer_ends(w->model, w->tokenizer, mb_renderer_chat(w->renderer), &w->end);
}

mb_status mb_writer_load_engine(mb_writer *w, int64_t capacity)
{
    const mb_recipe *r = w->recipe;
    const int threads = r->threads > 0 ? (int)r->threads : mb_default_threads();
    mb_session_options session = {.path = w->model,
                                  .adapter_path = w->adapter,
                                  .head = MB_HEAD_CAUSAL_LM,
                                  .quiet = true,
                                  .keep_blocks = true,
                                  .bases = w->bases,
                                  .engine = {.threads = threads, .max_positions = capacity}};

    MB_TRY(mb_recipe_open_device(r, 0, threads, &w->device));
    MB_TRY(mb_recipe_dtype(r, w->device, false, &session.engine.dtype));
    session.engine.device = w->device;
    return mb_session_open(&session, &w->engine, NULL);
}

mb_status mb_writer_load(mb_writer *w, int64_t n_seq, int64_t capacity)
{
    const mb_generator_options o = {.n_seq = n_seq, .capacity = capacity};

    MB_TRY(mb_writer_load_engine(w, capacity));
    return mb_generator_new(w->engine, w->tokenizer, &o, &w->generator);
}

void mb_writer_close(mb_writer *w)
{
    mb_generator_free(w->generator);
    mb_engine_free(w->engine);
    mb_device_close(w->device);
    mb_ids_release(&w->end);
    mb_renderer_free(w->renderer);
    mb_tokenizer_free(w->tokenizer);
    *w = (mb_writer){0};
}

/* ---- prompts and options ------------------------------------------------------------------ */

mb_status mb_writer_encode(const mb_writer *w, const mb_record *rec, mb_tokens *out)
{
    const mb_chat *chat = mb_renderer_chat(w->renderer);
    const mb_conversation talk = mb_record_talk(rec);
    mb_record text = {.kind = MB_RECORD_TEXT};

    if (rec->kind == MB_RECORD_CHAT && chat != NULL) {
        mb_tokens_clear(out);
        return mb_chat_render(chat, &talk, NULL, true, out);
    }
    if (rec->kind == MB_RECORD_TEXT) {
        text.text = rec->text;
        return mb_render(w->renderer, &text, out, NULL);
    }
    MB_REQUIRE(rec->kind == MB_RECORD_CHAT, MB_EDATA, "a prompt must be a text or a conversation");
    const char *choice = w->recipe->chat_template;
    if (choice != NULL && strcmp(choice, "none") == 0 && rec->n_messages == 1 &&
        rec->message[0].role == MB_ROLE_USER) { /* as its training rows are written */
        text.text = rec->message[0].content;
        return mb_render(w->renderer, &text, out, NULL);
    }
    return mb_render(w->renderer, rec, out, NULL); /* says what is missing */
}

mb_generate_options mb_writer_options(const mb_writer *w)
{
    const mb_recipe *r = w->recipe;

    return (mb_generate_options){.max_new_tokens = r->max_new_tokens,
                                 .pick = {.sample = r->do_sample,
                                          .temperature = r->temperature,
                                          .top_k = r->top_k,
                                          .top_p = r->top_p,
                                          .repetition_penalty = r->repetition_penalty,
                                          .seed = (uint64_t)r->seed},
                                 .end = w->end.id,
                                 .n_end = (int64_t)w->end.n,
                                 .stop = r->stop.at,
                                 .n_stop = r->stop.n};
}

int64_t mb_writer_context(const mb_writer *w, int64_t otherwise)
{
    const int64_t most =
        mb_recipe_is_set(w->recipe, "max_length") ? w->recipe->max_length : otherwise;

    return most < w->positions ? most : w->positions;
}

bool mb_writer_print(const char *text, size_t n)
{
    if (fwrite(text, 1, n, stdout) == n && fflush(stdout) == 0)
        return true;
    if (errno == EPIPE)
        clearerr(stdout);
    return false;
}

static double per_second(int64_t n, double seconds)
{
    return seconds > 0.0 ? (double)n / seconds : 0.0;
}

void mb_writer_print_speed(const mb_writer *w)
{
    const mb_generator_stats s = mb_generator_last(w->generator);

    fprintf(stderr,
            "prompt: %lld tokens, %.1f tokens/s (%lld more were kept); answer: %lld tokens, %.1f "
            "tokens/s\n",
            (long long)s.prompt_tokens, per_second(s.prompt_tokens, s.prompt_seconds),
            (long long)s.kept_tokens, (long long)s.answer_tokens,
            per_second(s.answer_tokens, s.answer_seconds));
}
