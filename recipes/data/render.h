/* recipes/data/render.h - a record becomes the tokens of a row, with what is trained marked.
 *
 *     text          [BOS] tokens(text) [EOS], all trained
 *     pair          [BOS] tokens(prompt) | tokens(completion + suffix) [EOS], trained after the bar
 *     conversation  as the chat format writes it (recipes/data/template.h)
 *     labelled      as the tokenizer's post-processor wants one or two sentences
 *     two sides     (paired) tokens(source_prefix + source) as the post-processor wants them, then what
 *                   starts a decoder, then those of the target with EOS: trained after the start
 *     words         as it wants one sentence; each word encoded by itself, trained at its first token
 *     question      tokens(question) | tokens(context), to be framed in pieces (mb_render_window)
 *     sentences     each as the post-processor wants one, one after the other
 *     sound         what opens a transcript (prompt_ids), tokens(text) EOS, trained after the first
 *
 * BOS is added when add_bos is yes, or auto and the tokenizer does so itself; EOS when add_eos is
 * yes, or auto for texts, and for completions that have no suffix of their own to end with (a model
 * that is never shown an end does not learn to stop). A BOS the text already begins with is not
 * doubled, and counted.
 */
#ifndef MB_RECIPES_DATA_RENDER_H
#define MB_RECIPES_DATA_RENDER_H

#include "recipes/data/template.h"

typedef struct mb_render_options {
    const mb_tokenizer *tokenizer; /* borrowed */
    const char *chat_template;     /* as mb_chat_options.choice, or "none" */
    int64_t n_values;              /* chat_template_kwargs, borrowed until the renderer is made */
    const char *const *value_name, *const *value;
    const char *system_prompt;     /* optional: for conversations without a system message */
    mb_train_what train;           /* pairs know assistant (= the completion) and all */
    int add_bos, add_eos;          /* 1 yes, 0 no, -1 auto */
    const char *completion_suffix; /* optional: put behind completions that lack it */
    int32_t prompt_ids[8];         /* of sounds; the first starts the decoder */
    int n_prompt_ids;
    bool paired; /* pairs have two sides: an encoder reads the first, a decoder writes the second */
    const mb_tokenizer *target; /* paired: of the second side; borrowed, NULL: the same */
    int32_t decoder_start;      /* paired */
    const char *source_prefix;  /* paired; optional: in front of every source */
    const char *source_lang, *target_lang; /* paired; optional: language tokens, where there are */
    int64_t max_target;       /* paired: tokens of a target after the start; 0: unlimited */
    bool masked_lm;           /* texts are framed by the post-processor; none is marked */
    int64_t longest_sentence; /* of sentences that belong together: tokens each; 0: no bound */
    int64_t now;              /* as mb_chat_options.now */
} mb_render_options;

typedef struct mb_renderer mb_renderer;

/* Copies the options. A chat template that cannot be found under "auto" is an error only when the
 * first conversation is rendered. */
mb_status mb_renderer_new(const mb_render_options *o, mb_renderer **out) MB_MUST_USE;
void mb_renderer_free(mb_renderer *r); /* NULL is allowed */
/* Replaces the contents of *out. out->extra: of words, each token's word or -1; of a question, the
 * bytes [from, to) of the context for each of its tokens; of sentences, the tokens of each. *double_bos, which may be NULL, says that a BOS was left out.
 * May be called from several threads at once, each with its own *out. */
mb_status mb_render(const mb_renderer *r, const mb_record *record, mb_tokens *out,
                    bool *double_bos) MB_MUST_USE;
/* Cuts a row to max tokens: the first ones; of labelled rows the special tokens stay and the longer
 * sentence gives way. */
void mb_render_truncate(mb_tokens *t, mb_record_kind kind, int64_t max);
/* The same for two sides: what ends each of them, its last special tokens, stays. */
void mb_render_truncate_sides(mb_tokens *t, int64_t max_source, int64_t max_target);
/* The id of a language's token in M2M-100's or NLLB's way; -1: there is none. */
int32_t mb_language_token(const mb_tokenizer *t, const char *lang);
/* Appends a source as an encoder reads it. */
mb_status mb_render_source(const mb_render_options *o, const char *text,
                           mb_tokens *out) MB_MUST_USE;
/* Tokens [from, from + n) of a question's context, framed with the question: what a model reads at once.
 * Appends to *out; extra: a pair per token, the context's bytes, -1 elsewhere. */
mb_status mb_render_window(const mb_renderer *r, const mb_tokens *question, size_t from, size_t n,
                           mb_tokens *out) MB_MUST_USE;
/* Tokens that a window has besides the context's. */
mb_status mb_render_window_frame(const mb_renderer *r, const mb_tokens *question,
                                 int64_t *n) MB_MUST_USE;
/* NULL when the rows need none or it is not known. */
const mb_chat *mb_renderer_chat(const mb_renderer *r);
/* Everything that decides the tokens of a record besides the tokenizer, as text, for digests. */
const char *mb_renderer_identity(const mb_renderer *r);
/* Is a BOS put in front of texts and pairs? */
bool mb_renderer_adds_bos(const mb_renderer *r);

#endif
