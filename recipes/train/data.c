/* recipes/train/data.c - see recipes/train/data.h. */
#include "recipes/train/data.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/path.h"
#include "core/rng.h"
#include "recipes/config/model_path.h"
#include "recipes/data/image_files.h"
#include "recipes/data/transcript.h"
#include "recipes/media/mel_config.h"
#include "recipes/train/engine.h"

/* ---- recipe -> store ---------------------------------------------------------------------- */

/* A dataset's own map first, then the recipe's for all. */
static mb_status field_map(const mb_recipe *r, const mb_dataset_spec *d, mb_source *s)
{
    const mb_pairs *maps[] = {&d->field_map, &r->field_map};
    mb_field_map *f = NULL;

    MB_TRY(MB_NEW_ARRAY(&f, d->field_map.n + r->field_map.n + 1));
    s->field = f;
    for (int m = 0; m < 2; m++)
        for (int64_t i = 0; i < maps[m]->n; i++)
            f[s->n_fields++] =
                (mb_field_map){.canonical = maps[m]->name[i], .column = maps[m]->value[i]};
    return MB_OK;
}

static mb_render_options render_options(const mb_recipe *r, const mb_task *task,
                                        const mb_tokenizer *tok)
{
    static const struct {
        mb_choice choice;
        int value;
    } words[] = {
        {MB_TRAIN_ON_ASSISTANT, MB_TRAIN_ASSISTANT},
        {MB_TRAIN_ON_COMPLETION, MB_TRAIN_COMPLETION},
        {MB_TRAIN_ON_ALL, MB_TRAIN_ALL},
        {MB_TRAIN_ON_EOS_TURN, MB_EOS_TURN},
        {MB_TRAIN_ON_EOS_LAST, MB_EOS_LAST},
        {MB_TRAIN_ON_EOS_ALL, MB_EOS_ALL},
        {MB_TRAIN_ON_EOS_NONE, MB_EOS_NONE},
    };
    mb_render_options o = {.tokenizer = tok,
                           .chat_template = r->chat_template,
                           .system_prompt = r->system_prompt,
                           .n_values = r->chat_template_kwargs.n,
                           .value_name = r->chat_template_kwargs.name,
                           .value = r->chat_template_kwargs.value,
                           .add_bos = (int)r->add_bos,
                           .add_eos = (int)r->add_eos,
                           .completion_suffix = r->completion_suffix,
                           .masked_lm = task->target == MB_TARGET_MASKED,
                           .paired = task->target == MB_TARGET_SECOND,
                           .source_prefix = r->source_prefix,
                           .source_lang = r->source_lang,
                           .target_lang = r->target_lang,
                           .max_target = r->max_target_length,
                           .longest_sentence = r->max_length};

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (words[i].choice == r->train_on)
            o.train.on = (mb_train_on)words[i].value;
        if (words[i].choice == r->train_on_eos)
            o.train.eos = (mb_train_eos)words[i].value;
    }
    return o;
}

static mb_excess excess(const mb_recipe *r)
{
    switch (r->excess_length_strategy) {
    case MB_LONG_ROWS_DROP:
        return MB_EXCESS_DROP;
    case MB_LONG_ROWS_RAISE:
        return MB_EXCESS_RAISE;
    default:
        return r->stage == MB_STAGE_PT ? MB_EXCESS_SPLIT : MB_EXCESS_TRUNCATE;
    }
}

/* The classes of a model that is a classifier, as a list in `names`, and whether they are called
 * anything but LABEL_0 ... */
static mb_status class_names(mb_json_doc *config, mb_json names, bool *named)
{
    mb_json by_id = mb_json_get(mb_json_root(config), "id2label");
    const char *name;
    char id[24], standard[32];

    *named = false;
    for (size_t i = 0; i < mb_json_count(by_id); i++) {
        snprintf(id, sizeof id, "%zu", i);
        snprintf(standard, sizeof standard, "LABEL_%zu", i);
        MB_TRY(mb_json_string(mb_json_get(by_id, id), &name, NULL));
        MB_TRY(mb_json_set_string(names, NULL, name));
        *named = *named || strcmp(name, standard) != 0;
    }
    return MB_OK;
}

mb_status mb_data_adopt_labels(mb_recipe *r, const mb_task *task, mb_json_doc *config)
{
    const size_t n = mb_json_count(mb_json_get(mb_json_root(config), "id2label"));
    mb_json_doc *names = NULL;
    char *text = NULL;
    bool named;
    mb_status st = MB_OK;

    if (!mb_task_has_classes(task) || r->label_names.n > 0 ||
        mb_model_config_head(config, MB_HEAD_CAUSAL_LM) != task->head || n < 2 ||
        (r->num_labels > 0 && (size_t)r->num_labels != n))
        return MB_OK;
    MB_TRY(mb_json_doc_new_array("label names", &names));
    MB_TRY_GOTO(class_names(config, mb_json_root(names), &named), st, done);
    if (named)
        MB_TRY_GOTO(mb_json_text(mb_json_root(names), 0, &text, NULL), st, done);
    if (named)
        st = mb_recipe_set(r, "label_names", text, "the model's config.json");
done:
    mb_free(text);
    mb_json_free(names);
    return st;
}

mb_status mb_data_store_options(const mb_recipe *r, const mb_datasets *sets, const mb_task *task,
                                const mb_tokenizer *tok, mb_store_options *o, mb_source **source)
{
    mb_source *s = NULL;

    MB_TRY(MB_NEW_ARRAY(&s, sets->n + 1));
    *source = s;
    for (int64_t i = 0; i < sets->n; i++) {
        const mb_dataset_spec *d = &sets->at[i];
        MB_TRY(mb_recipe_check_data(d));
        s[i] = (mb_source){.path = d->path,
                           .type = mb_choice_word(d->type),
                           .split = d->split,
                           .rows = task->rows,
                           .source_lang = r->source_lang,
                           .target_lang = r->target_lang,
                           .skip_bad = r->bad_rows == MB_BAD_ROWS_SKIP,
                           .within = r->allowed_local_media_path.n > 0
                                         ? (const char *const *)r->allowed_local_media_path.at
                                         : NULL};
        MB_TRY(field_map(r, d, &s[i]));
    }
    *o = mb_store_defaults();
    o->source = s;
    o->n_sources = (int)sets->n;
    o->render = render_options(r, task, tok);
    o->max_length = r->max_length;
    o->excess = excess(r);
    o->rows = task->rows;
    o->doc_stride = r->doc_stride;
    o->label_names = (const char *const *)r->label_names.at;
    o->n_label_names = (int)r->label_names.n;
    if (task->rows != MB_WANT_SOUND)
        return MB_OK;
    return mb_transcript_prompt(r->model_name_or_path, tok, r->language, r->speech_task,
                                o->render.prompt_ids, &o->render.n_prompt_ids);
}

void mb_data_free_sources(mb_source *s, int64_t n)
{
    for (int64_t i = 0; s != NULL && i < n; i++)
        mb_free((void *)(uintptr_t)s[i].field);
    mb_free(s);
}

/* In the folder of a run, which only training makes; NULL: nowhere. */
static const char *cache_dir(const mb_recipe *r, char *path, size_t size)
{
    const char *wanted = getenv("MBUYU_CACHE");

    if (r->output_dir == NULL)
        return NULL;
    if (wanted != NULL && wanted[0] != '\0')
        return wanted;
    snprintf(path, size, "%s/cache", r->output_dir);
    return mb_path_is_dir(r->output_dir) ? path : NULL;
}

mb_status mb_data_make_store(const mb_store_options *o, const mb_task *task,
                             const mb_model_config *model, mb_comm *comm, mb_store **out)
{
    const mb_patches p = mb_patches_of(model);

    return mb_task_sees_images(task) ? mb_image_store_build(o, mb_patches_tokens(&p), comm, out)
                                     : mb_store_build(o, comm, out);
}

static mb_status build_store(const mb_recipe *r, const mb_datasets *sets, const mb_task *task,
                             const mb_model_config *model, const mb_data *d, mb_comm *comm,
                             const mb_store *labels_of, const char *what, mb_store **out)
{
    char cache[4096];
    mb_store_options o;
    mb_source *source = NULL;
    mb_status st = MB_OK;

    st = mb_data_store_options(r, sets, task, d->tokenizer, &o, &source);
    MB_TRY_GOTO(mb_comm_agree(comm, st), st, done);
    o.vocab_size = model->vocab;
    o.unlabelled = d->unlabelled;
    o.render.now = d->now;
    o.render.target = d->target_tokenizer;
    o.render.decoder_start = (int32_t)model->decoder_start_id;
    o.most_seconds = (double)d->frames.tokens / MB_TOKENS_A_SECOND;
    if (o.n_label_names == 0 && labels_of != NULL && labels_of->n_labels > 0) {
        o.label_names = (const char *const *)labels_of->label_name;
        o.n_label_names = labels_of->n_labels;
    }
    o.cache_dir = cache_dir(r, cache, sizeof cache);
    MB_TRY_GOTO(mb_data_make_store(&o, task, model, comm, out), st, done);
    mb_store_log(*out, what);
done:
    mb_data_free_sources(source, sets->n);
    return st;
}

/* ---- rows --------------------------------------------------------------------------------- */

/* A dataset of weight w has each of its rows floor(w) times, and once more for a share w - floor(w)
 * of them, chosen by a hash of the row. */
static int64_t copies(const mb_recipe *r, const mb_store *s, int64_t row)
{
    const double w = r->datasets.at[s->source[row]].weight;
    const double share =
        mb_rng_double(mb_rng_key((uint64_t)r->seed, MB_SITE_SPLIT, 1), s->hash[row]);

    return (int64_t)floor(w) + (share < w - floor(w) ? 1 : 0);
}

static mb_status weigh(const mb_recipe *r, mb_data *d)
{
    int64_t *rows = NULL, n = 0;

    for (int64_t i = 0; i < d->n_train; i++)
        n += copies(r, d->store, d->train_rows[i]);
    if (n == d->n_train)
        return MB_OK;
    MB_REQUIRE(n > 0, MB_EDATA, "the datasets' weights leave no row to train on");
    MB_TRY(MB_NEW_ARRAY(&rows, n));
    n = 0;
    for (int64_t i = 0; i < d->n_train; i++)
        for (int64_t k = copies(r, d->store, d->train_rows[i]); k > 0; k--)
            rows[n++] = d->train_rows[i];
    mb_free(d->train_rows);
    d->train_rows = rows;
    d->n_train = n;
    return MB_OK;
}

static mb_status split(const mb_recipe *r, mb_data *d)
{
    MB_TRY(mb_store_split(d->store, r->val_set_size, (uint64_t)r->seed, &d->train_rows, &d->n_train,
                          &d->val_rows, &d->n_val));
    MB_REQUIRE(d->n_train > 0, MB_EDATA, "val_set_size %g leaves no row to train on",
               r->val_set_size);
    return weigh(r, d);
}

static mb_status open_second_side(const mb_recipe *r, const mb_model_config *model, mb_data *d)
{
    MB_REQUIRE(!r->packing, MB_ENOTSUP,
               "packing: rows of task seq2seq have two sides, which are not packed");
    MB_REQUIRE(model->mel_bins == 0, MB_EARG,
               "%s reads sounds: its task is speech-recognition, not seq2seq",
               r->model_name_or_path);
    MB_REQUIRE(model->decoder_start_id >= 0, MB_EMODEL,
               "%s: config.json has no decoder_start_token_id, with which every answer begins",
               r->model_name_or_path);
    return mb_tokenizer_load_target(r->model_name_or_path, &d->target_tokenizer);
}

/* How much of a sound there is room for. */
static mb_status frames_of(const mb_recipe *r, const mb_task *task, const mb_model_config *model,
                           mb_frames *out)
{
    if (task->id != MB_TASK_SPEECH_RECOGNITION)
        return MB_OK;
    MB_REQUIRE(model->mel_bins > 0, MB_EMODEL, "%s hears nothing: task %s wants a Whisper",
               r->model_name_or_path, mb_choice_word(r->task));
    MB_TRY(mb_mel_config_check(r->model_name_or_path, model->mel_bins));
    return mb_frames_for(model, r->audio_seconds, out);
}

mb_status mb_data_processor(const mb_recipe *r, const mb_model_config *model,
                            mb_image_processor *out)
{
    MB_TRY(mb_image_processor_read(r->model_name_or_path, model->image_height, model->image_width,
                                   model->channels, out));
    out->way = r->image_backend == MB_IMAGE_BACKEND_PIL ? MB_RESIZE_PIL : MB_RESIZE_TORCHVISION;
    return MB_OK;
}

mb_status mb_data_pictures(const mb_recipe *r, const mb_model_config *model, const mb_store *a,
                           const mb_store *b, mb_pictures **out)
{
    mb_pictures_options o = {
        .patches = mb_patches_of(model),
        .augment = {.crop = r->image_crop == MB_IMAGE_CROP_RESIZED  ? MB_CROP_RESIZED
                            : r->image_crop == MB_IMAGE_CROP_PADDED ? MB_CROP_PADDED
                                                                    : MB_CROP_NO,
                    .scale = r->image_crop_scale,
                    .padding = r->image_crop_padding,
                    .flip = r->image_flip,
                    .rotation = r->image_rotation,
                    .jitter = r->image_color_jitter},
        .threads = omp_get_max_threads()};

    MB_TRY(mb_data_processor(r, model, &o.processor));
    return mb_pictures_new(&o, a, b, out);
}

static mb_status open_all(const mb_recipe *r, const mb_task *task, const mb_model_config *model,
                          mb_comm *comm, mb_data *d)
{
    const bool pictures = mb_task_sees_images(task);

    if (!pictures)
        MB_TRY(mb_comm_agree(comm, mb_tokenizer_load(r->model_name_or_path, &d->tokenizer)));
    if (task->target == MB_TARGET_SECOND)
        MB_TRY(mb_comm_agree(comm, open_second_side(r, model, d)));
    MB_TRY(mb_comm_agree(comm, frames_of(r, task, model, &d->frames)));
    if (r->datasets.n > 0) {
        MB_TRY(build_store(r, &r->datasets, task, model, d, comm, NULL, "train", &d->store));
        MB_TRY(mb_comm_agree(comm, split(r, d)));
    }
    if (r->eval_datasets.n > 0)
        MB_TRY(build_store(r, &r->eval_datasets, task, model, d, comm, d->store, "eval",
                           &d->eval_store));
    d->collate = (mb_collate_options){
        .kind = task->target,
        .seed = (uint64_t)r->seed,
        .mask_id = pictures ? -1 : mb_tokenizer_role(d->tokenizer, MB_TOKEN_MASK),
        .vocab_size = model->vocab,
        .masked_share = (float)r->mlm_probability,
        .segments = model->segments,
        .max_positions = model->positions,
    };
    MB_REQUIRE(task->target != MB_TARGET_MASKED || d->collate.mask_id >= 0, MB_EMODEL,
               "%s: the tokenizer has no mask token, which task masked-lm needs",
               r->model_name_or_path);
    if (!pictures)
        return MB_OK;
    MB_TRY(mb_comm_agree(comm, mb_data_pictures(r, model, d->store, d->eval_store, &d->pictures)));
    d->collate.pictures = d->pictures;
    return MB_OK;
}

mb_status mb_data_open(const mb_recipe *r, const mb_task *task, const mb_model_config *model,
                       bool unlabelled, int64_t now, mb_comm *comm, mb_data **out)
{
    mb_data *d = NULL;
    mb_status st;

    MB_TRY_GOTO(mb_comm_agree(comm, MB_NEW(&d)), st, done);
    d->unlabelled = unlabelled;
    d->now = now;
    st = mb_comm_agree(comm, open_all(r, task, model, comm, d));
done:
    if (st == MB_OK)
        *out = d;
    else
        mb_data_free(d);
    return st;
}

mb_status mb_data_open_tokenizer(const mb_recipe *r, mb_data **out)
{
    mb_data *d = NULL;
    mb_status st;

    MB_TRY(MB_NEW(&d));
    st = mb_task_sees_images(mb_task_of(r))
             ? MB_OK
             : mb_tokenizer_load(r->model_name_or_path, &d->tokenizer);
    if (st == MB_OK)
        *out = d;
    else
        mb_data_free(d);
    return st;
}

mb_status mb_data_borrow(const mb_data *of, mb_data **out)
{
    mb_data *d = NULL;

    MB_TRY(MB_NEW(&d));
    *d = *of;
    d->borrowed = true;
    d->train = d->eval = d->ahead = NULL;
    d->batch = d->source = NULL;
    d->listener = d->eval_listener = NULL;
    *out = d;
    return MB_OK;
}

void mb_data_free(mb_data *d)
{
    if (d == NULL)
        return;
    mb_sampler_free(d->train);
    mb_sampler_free(d->eval);
    mb_sampler_free(d->ahead);
    mb_batch_free(d->batch);
    mb_batch_free(d->source);
    mb_listener_free(d->listener);
    mb_listener_free(d->eval_listener);
    if (!d->borrowed) {
        mb_free(d->train_rows);
        mb_free(d->val_rows);
        mb_store_free(d->store);
        mb_store_free(d->eval_store);
        mb_tokenizer_free(d->tokenizer);
        mb_tokenizer_free(d->target_tokenizer);
        mb_pictures_free(d->pictures);
    }
    mb_free(d);
}

/* ---- order -------------------------------------------------------------------------------- */

mb_status mb_data_values(mb_data *d, int64_t n)
{
    d->collate.n_values = d->eval_collate.n_values = n;
    return d->batch != NULL && d->batch->n_values == 0 ? mb_batch_reserve_values(d->batch, n)
                                                       : MB_OK;
}

int64_t mb_data_eval_rows(const mb_data *d)
{
    return d->eval_store != NULL ? d->eval_store->n_rows : d->n_val;
}

const mb_store *mb_data_eval_store(const mb_data *d)
{
    return d->eval_store != NULL ? d->eval_store : d->store;
}

int64_t mb_data_eval_row(const mb_data *d, int64_t i)
{
    return d->eval_store != NULL ? i : d->val_rows[i];
}

static mb_status order_train(const mb_data *d, const mb_recipe *r, int64_t micro_units,
                             int64_t step_units, mb_sampler **out)
{
    const bool counts_rows = d->collate.kind != MB_TARGET_NEXT &&
                             d->collate.kind != MB_TARGET_TOKENS &&
                             d->collate.kind != MB_TARGET_SECOND;
    const mb_sampler_options o = {
        .seed = (uint64_t)(mb_recipe_is_set(r, "data_seed") ? r->data_seed : r->seed),
        .n_rows = d->n_train,
        .rows = d->train_rows,
        .offset = d->store->offset,
        .trained = counts_rows ? NULL : d->store->trained,
        .shuffle = true,
        .packing = r->packing,
        .max_length = r->max_length,
        .micro_units = micro_units,
        .step_units = step_units,
        .epochs = r->num_train_epochs,
        .max_steps = r->max_steps,
    };

    return mb_sampler_new(&o, out);
}

static mb_status order_eval(mb_data *d, const mb_recipe *r)
{
    const mb_store *s = mb_data_eval_store(d);
    const mb_sampler_options o = {
        .n_rows = mb_data_eval_rows(d),
        .rows = d->eval_store != NULL ? NULL : d->val_rows,
        .offset = s->offset,
        .micro_units = r->per_device_eval_batch_size,
        .step_units = mb_data_eval_rows(d),
        .epochs = 1.0,
    };

    return mb_sampler_new(&o, &d->eval);
}

static int descending(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x < y) - (x > y);
}

/* The k longest of n numbers, added up. */
static int64_t longest(int64_t *length, int64_t n, int64_t k)
{
    int64_t sum = 0;

    qsort(length, (size_t)n, sizeof *length, descending);
    for (int64_t i = 0; i < n && i < k; i++)
        sum += length[i];
    return sum;
}

/* What the sides of k rows may come to, whichever rows meet. */
static mb_status bound_sides(const mb_store *s, const int64_t *rows, int64_t n, int64_t k,
                             mb_collate_options *o)
{
    int64_t *source = NULL, *target = NULL;
    mb_status st;

    o->both_largest = o->largest;
    MB_TRY(MB_NEW_ARRAY(&source, n + 1));
    st = MB_NEW_ARRAY(&target, n + 1);
    for (int64_t i = 0; i < n && st == MB_OK; i++) {
        const int64_t row = rows != NULL ? rows[i] : i;

        source[i] = mb_store_source_tokens(s, row);
        target[i] = s->offset[row + 1] - s->offset[row] - source[i] - 1;
    }
    if (st == MB_OK) {
        o->source_largest = longest(source, n, k);
        o->largest = longest(target, n, k);
    }
    mb_free(source);
    mb_free(target);
    return st;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static mb_status make_batch(mb_data *d, int64_t rows)
{
    const mb_collate_options *a = &d->collate, *b = &d->eval_collate;

    MB_TRY(mb_batch_new(most(a->largest, b->largest), rows, &d->batch));
    if (a->kind != MB_TARGET_SECOND)
        return MB_OK;
    MB_TRY(mb_batch_new(most(a->source_largest, b->source_largest), rows, &d->source));
    d->batch->source = d->source;
    return MB_OK;
}

/* Up to two steps of rows are read ahead, but no more than this many beyond two micro-batches. */
enum { MOST_AHEAD = 64, BYTES_AHEAD = 256 << 20 }; /* the bytes of pictures */

/* A source for as many sounds as a micro-batch has, of one size whatever their number. */
static mb_status order_sounds(mb_data *d, const mb_recipe *r, int64_t micro_units,
                              int64_t step_units, int64_t rows)
{
    const int64_t wanted = 2 * step_units < MOST_AHEAD ? 2 * step_units : MOST_AHEAD;
    const int64_t ahead = wanted > 2 * rows ? wanted : 2 * rows;
    const int threads = mb_default_threads();

    MB_TRY(mb_batch_new(rows * d->frames.tokens, rows, &d->source));
    MB_TRY(mb_frames_reserve(&d->frames, d->source));
    d->source->max_len = d->frames.tokens;
    d->batch->source = d->source;
    if (d->train != NULL) {
        MB_TRY(order_train(d, r, micro_units, step_units, &d->ahead));
        MB_TRY(mb_listener_new(&d->frames, ahead, threads, &d->listener));
    }
    if (d->eval != NULL)
        MB_TRY(mb_listener_new(&d->frames, rows, threads, &d->eval_listener));
    d->collate.listener = d->listener;
    d->eval_collate.listener = d->eval_listener;
    d->collate.frames = d->eval_collate.frames = d->frames;
    return MB_OK;
}

static mb_status order_pictures(mb_data *d, const mb_recipe *r, int64_t micro_units,
                                int64_t step_units)
{
    const mb_patches *p = &mb_pictures_are(d->pictures)->patches;
    const int64_t bytes = mb_patches_count(p) * mb_patches_cols(p) * (int64_t)sizeof(float),
                  fit = most(BYTES_AHEAD / bytes, MOST_AHEAD);

    MB_TRY(mb_patches_reserve(p, d->batch));
    if (!d->reads_ahead || d->train == NULL || d->borrowed)
        return MB_OK;
    MB_TRY(order_train(d, r, micro_units, step_units, &d->ahead));
    return mb_pictures_read_ahead(d->pictures, 2 * step_units < fit ? 2 * step_units : fit);
}

mb_status mb_data_order(mb_data *d, const mb_recipe *r, int64_t micro_units, int64_t step_units)
{
    int64_t rows = 1, sentences = 1;

    if (d->store != NULL && d->store->n_sentences > 1)
        sentences = d->store->n_sentences;
    if (d->eval_store != NULL && d->eval_store->n_sentences > sentences)
        sentences = d->eval_store->n_sentences;
    d->collate.largest = 0;
    d->eval_collate = d->collate;
    d->collate.augmented = true;
    if (d->store != NULL && step_units > 0) {
        MB_TRY(order_train(d, r, micro_units, step_units, &d->train));
        d->collate.largest = mb_sampler_max_tokens(d->train);
        rows = mb_sampler_max_rows(d->train);
        if (d->collate.kind == MB_TARGET_SECOND)
            MB_TRY(bound_sides(d->store, d->train_rows, d->n_train, rows, &d->collate));
    }
    if (mb_data_eval_rows(d) > 0) {
        MB_TRY(order_eval(d, r));
        d->eval_collate.largest = mb_sampler_max_tokens(d->eval);
        if (d->collate.kind == MB_TARGET_SECOND)
            MB_TRY(bound_sides(mb_data_eval_store(d), d->eval_store != NULL ? NULL : d->val_rows,
                               mb_data_eval_rows(d), mb_sampler_max_rows(d->eval),
                               &d->eval_collate));
        rows = most(rows, mb_sampler_max_rows(d->eval));
    }
    MB_TRY(make_batch(d, rows * sentences));
    if (d->pictures != NULL)
        MB_TRY(order_pictures(d, r, micro_units, step_units));
    return d->frames.tokens > 0 ? order_sounds(d, r, micro_units, step_units, rows) : MB_OK;
}

static mb_status expect_rows(mb_data *d, const mb_step *s, int rank, int size)
{
    int64_t from, to;
    mb_micro micro;

    mb_micro_range(s->n_micro, rank, size, &from, &to);
    for (int64_t m = from; m < to; m++) {
        mb_step_micro(s, m, &micro);
        if (d->listener != NULL)
            mb_listener_expect(d->listener, d->store, micro.row, micro.n_rows);
        else
            mb_pictures_expect(d->pictures, d->store, &micro, d->collate.seed, (uint32_t)s->step);
    }
    return MB_OK;
}

mb_status mb_data_expect(mb_data *d, const mb_step *s, int rank, int size)
{
    mb_step next;

    if (d->ahead == NULL)
        return MB_OK;
    if (d->listener != NULL ? mb_listener_idle(d->listener) : mb_pictures_idle(d->pictures))
        MB_TRY(expect_rows(d, s, rank, size));
    if (s->step + 1 >= mb_sampler_steps(d->ahead))
        return MB_OK;
    MB_TRY(mb_sampler_step(d->ahead, s->step + 1, &next));
    return expect_rows(d, &next, rank, size);
}
