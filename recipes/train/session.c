/* recipes/train/session.c - see recipes/train/session.h. */
#include "recipes/train/session.h"

#include "autograd/load.h"
#include "core/alloc.h"
#include "core/cpu/cpu.h"
#include "core/log.h"
#include "recipes/config/token_ids.h"
#include "recipes/export/adapter.h"

enum { MOST_TABLES = 8 };

/* Adapters, and rows of tokens in each of the tables that are named. */
static mb_status add_lora(mb_model *m, const mb_session_options *o, mb_json config)
{
    const int64_t named = o->token_modules != NULL ? o->token_modules->n : 0;
    mb_token_wish wish[MOST_TABLES] = {0};
    mb_lora_options lora = o->lora;
    int32_t *ids = NULL;
    int64_t n;
    mb_status st;

    if (o->token_ids == NULL || o->token_ids->n == 0)
        return mb_model_add_lora(m, &lora);
    MB_REQUIRE(named <= MOST_TABLES, MB_EARG,
               "trainable_token_modules names %lld tables, at most %d", (long long)named,
               MOST_TABLES);
    MB_TRY(mb_token_ids(o->token_ids, config, o->path, m->config.vocab, &ids, &n));
    lora.tokens = wish;
    lora.n_tokens = named > 0 ? (int)named : 1;
    for (int i = 0; i < lora.n_tokens; i++)
        wish[i] = (mb_token_wish){
            .module = named > 0 ? o->token_modules->at[i] : NULL, .id = ids, .n = n};
    st = mb_model_add_lora(m, &lora);
    mb_free(ids);
    return st;
}

static mb_status choose_trained(mb_model *m, const mb_session_options *o, mb_json config)
{
    switch (o->trained) {
    case MB_TRAINED_ALL:
        mb_model_train_all(m);
        return MB_OK;
    case MB_TRAINED_SOME:
        return mb_model_train_some(m, o->layers, o->patterns, o->n_patterns);
    case MB_TRAINED_LORA:
        return add_lora(m, o, config);
    case MB_TRAINED_ADAPTER:
        return mb_adapter_add(m, o->adapter_path);
    case MB_TRAINED_NOTHING:
        break;
    }
    return o->adapter_path != NULL ? mb_adapter_add(m, o->adapter_path) : MB_OK;
}

/* A new weight that stays frozen would be lost: nobody who loads the adapter has its values. */
static mb_status new_weights_are_kept(const mb_model *m)
{
    for (int i = 0; i < m->n_weights; i++) {
        const mb_weight *w = &m->weight[i];
        char module[384];
        mb_weight_module(w, module, sizeof module);
        MB_REQUIRE(!w->fresh || w->trained, MB_EARG,
                   "%s is not in the base model and would be neither trained nor saved: add it to "
                   "lora_modules_to_save",
                   module);
    }
    return MB_OK;
}

/* Adapters of a model that is only evaluated need no gradients, and rows of tokens stay where they
 * are. */
static mb_status freeze(mb_model *m)
{
    MB_TRY(mb_model_write_token_rows(m));
    for (int i = 0; i < m->n_weights; i++)
        m->weight[i].trained = false;
    return MB_OK;
}

static mb_status read_values(mb_engine *e, const mb_session_options *o, mb_load_report *report)
{
    mb_tensor_file *f = NULL;
    mb_status st;

    *report = (mb_load_report){0};
    if (o->random) {
        MB_REQUIRE(o->trained == MB_TRAINED_ALL, MB_EARG,
                   "init random makes a model that knows nothing: it can only be trained whole "
                   "(finetuning_type full, without adapter_path)");
        report->fresh = e->model->n_weights;
        return mb_model_init(e->model, o->seed);
    }
    if (e->base != NULL) {
        f = mb_base_file(e->base);
        return mb_model_load(e->model, f, mb_tensor_file_name(f), &e->host, o->seed, report);
    }
    MB_TRY(mb_tensor_file_open(o->path, &f));
    st = mb_model_load(e->model, f, o->path, &e->host, o->seed, report);
    mb_tensor_file_close(f);
    return st;
}

mb_status mb_session_load(mb_engine *e, const mb_session_options *o)
{
    mb_load_report report;

    MB_TRY(read_values(e, o, &report));
    if (o->trained == MB_TRAINED_LORA)
        MB_TRY(new_weights_are_kept(e->model));
    if (o->trained == MB_TRAINED_LORA)
        MB_TRY(mb_model_init_lora(e->model, o->seed));
    else if (o->adapter_path != NULL)
        MB_TRY(mb_adapter_load(e->model, o->adapter_path, &e->host));
    if (!o->quiet)
        mb_log_info("%s: %s, %.1fM parameters, %.1fM trained; %d tensors read, %d left out, %d new",
                    o->path, e->model->family->name,
                    (double)mb_model_parameters(e->model, false) / 1e6,
                    (double)mb_model_parameters(e->model, true) / 1e6, report.loaded,
                    report.ignored, report.fresh);
    if (e->base != NULL)
        MB_TRY(mb_base_keep(e->base, e->model, &e->run));
    return o->trained == MB_TRAINED_NOTHING ? freeze(e->model) : MB_OK;
}

static void keep_blocks(const mb_session_options *o, mb_model *m, const mb_tensor_file *f)
{
    const int n =
        o->keep_blocks && o->engine.dtype == MB_DTYPE_F32 ? mb_model_keep_blocks(m, f) : 0;

    if (n > 0 && !o->quiet)
        mb_log_info("%s: %d matrices stay in blocks", o->path, n);
}

/* The base whose weights the model may use (NULL: it has its own), and what stays in blocks. */
static mb_status look_at_file(const mb_session_options *o, mb_model *m, mb_base **base)
{
    mb_exec host = mb_cpu_exec(NULL, o->engine.threads);
    mb_tensor_file *f = NULL;

    if (o->trained != MB_TRAINED_NOTHING || !mb_device_is_host(o->engine.device) ||
        (!o->keep_blocks && o->bases == NULL))
        return MB_OK;
    MB_TRY(mb_tensor_file_open(o->path, &f));
    if (o->bases == NULL) {
        keep_blocks(o, m, f);
        mb_tensor_file_close(f);
        return MB_OK;
    }
    MB_TRY(mb_base_enter(o->bases, f, m, &host, base));
    keep_blocks(o, m, mb_base_file(*base));
    return MB_OK;
}

static mb_status build(const mb_session_options *o, mb_json_doc *doc, mb_engine **out)
{
    mb_engine_options engine = o->engine;
    mb_model_config c;
    mb_model *m = NULL;
    mb_engine *e = NULL;
    mb_status st = MB_OK;

    MB_TRY(mb_model_config_parse(doc, o->head, &c));
    if (o->labels == 0 && (c.head == MB_HEAD_SEQUENCE || c.head == MB_HEAD_TOKENS) &&
        o->adapter_path != NULL) {
        int64_t labels;
        MB_TRY(mb_adapter_labels(o->adapter_path, &labels));
        if (labels > 0)
            c.labels = labels;
    }
    if (o->labels > 0)
        c.labels = o->labels;
    if (o->has_loss) {
        c.loss = o->loss;
        c.temperature = o->temperature;
    }
    MB_TRY(mb_model_new(&c, &m));
    st = choose_trained(m, o, mb_json_root(doc));
    if (st == MB_OK)
        st = look_at_file(o, m, &engine.base);
    if (st != MB_OK) {
        mb_model_free(m);
        return st;
    }
    MB_TRY(mb_engine_new(m, &engine, &e));
    if (!o->no_values)
        MB_TRY_GOTO(mb_session_load(e, o), st, fail);
    *out = e;
    return MB_OK;
fail:
    mb_engine_free(e);
    return st;
}

mb_status mb_session_open(const mb_session_options *o, mb_engine **e, mb_json_doc **config)
{
    mb_json_doc *doc = NULL;
    mb_status st;

    MB_TRY(mb_model_config_doc(o->path, &doc));
    st = build(o, doc, e);
    if (st == MB_OK && config != NULL) {
        *config = doc;
        return MB_OK;
    }
    mb_json_free(doc);
    return st;
}
