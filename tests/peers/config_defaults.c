/* tests/peers/config_defaults.c - what mbuyu reads out of configurations, for config_defaults.py.
 *
 *     config_defaults FOLDER...
 *
 * prints a line of JSON for each: what the family's configuration comes down to, or {"error": "..."}.
 */
#include <stdio.h>

#include "autograd/model.h"
#include "core/alloc.h"

static mb_status fill(const mb_model_config *c, mb_json out)
{
    const struct {
        const char *name;
        double value;
    } numbers[] = {
        {"kv_heads", (double)c->kv_heads},
        {"head_dim", (double)c->head_dim},
        {"positions", (double)c->positions},
        {"norm_eps", c->norm_eps},
        {"tied", c->tied},
        {"activation", (double)c->activation},
        {"qkv_bias", c->qkv_bias},
        {"mlp_bias", c->mlp_bias},
        {"drop_attention", c->drop_attention},
        {"drop_hidden", c->drop_hidden},
        {"drop_embed", c->drop_embed},
        {"head_softcap", c->head_softcap},
        {"segments", (double)c->segments},
        {"theta", c->rope.theta},
        {"theta_window",
         c->rope_window.type == MB_ROPE_NONE ? c->rope.theta : c->rope_window.theta},
        {"rotated", (double)c->rope.rotated},
        {"original", c->rope.original_positions},
        {"attention_factor", c->rope.type == MB_ROPE_LONG ? c->rope.attention_factor : 1.0}};
    mb_json windows, rotation;

    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        MB_TRY(mb_json_set_real(out, numbers[i].name, numbers[i].value));
    MB_TRY(mb_json_set_array(out, "windows", &windows));
    MB_TRY(mb_json_set_array(out, "rotation", &rotation));
    for (int64_t l = 0; l < c->layers; l++) {
        MB_TRY(mb_json_set_int(windows, NULL, mb_layer_set_has(&c->full, l) ? 0 : c->window));
        MB_TRY(mb_json_set_int(rotation, NULL, !mb_layer_set_has(&c->unrotated, l)));
    }
    return MB_OK;
}

static mb_status parse(const char *folder, mb_json out)
{
    mb_json_doc *doc = NULL;
    mb_model_config c;
    mb_status st;

    MB_TRY(mb_model_config_doc(folder, &doc));
    st = mb_model_config_parse(doc, mb_model_config_head(doc, MB_HEAD_CAUSAL_LM), &c);
    if (st == MB_OK)
        st = fill(&c, out);
    mb_json_free(doc);
    return st;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        mb_json_doc *doc;
        char *text;

        if (mb_json_doc_new("out", &doc) != MB_OK)
            return 1;
        if (parse(argv[i], mb_json_root(doc)) != MB_OK &&
            mb_json_set_string(mb_json_root(doc), "error", mb_status_sentence()) != MB_OK)
            return 1;
        mb_status_clear();
        if (mb_json_text(mb_json_root(doc), 0, &text, NULL) != MB_OK)
            return 1;
        puts(text);
        mb_free(text);
        mb_json_free(doc);
    }
    return 0;
}
