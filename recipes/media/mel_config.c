/* recipes/media/mel_config.c - see recipes/media/mel_config.h. */
#include "recipes/media/mel_config.h"

#include "core/alloc.h"
#include "core/json.h"
#include "core/path.h"
#include "recipes/media/audio.h"
#include "recipes/media/mel.h"

enum { MOST_BYTES = 1 << 24 }; /* old files hold all filters */

static const char *const file = "preprocessor_config.json";

static mb_status check(mb_json root, int64_t bins)
{
    const struct {
        const char *key;
        int64_t wanted;
    } numbers[] = {{"feature_size", bins},
                   {"sampling_rate", MB_AUDIO_RATE},
                   {"hop_length", MB_MEL_HOP},
                   {"n_fft", MB_MEL_WINDOW}};
    bool normalise;

    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        int64_t v;

        MB_TRY(mb_json_get_int(root, numbers[i].key, numbers[i].wanted, &v));
        if (v != numbers[i].wanted)
            return mb_json_fault(mb_json_get(root, numbers[i].key), "is %lld; %lld is supported",
                                 (long long)v, (long long)numbers[i].wanted);
    }
    MB_TRY(mb_json_get_bool(root, "do_normalize", false, &normalise));
    if (normalise)
        return mb_json_fault(mb_json_get(root, "do_normalize"), "is true, which is not supported");
    return MB_OK;
}

mb_status mb_mel_config_check(const char *folder, int64_t bins)
{
    char path[MB_PATH_MAX];
    mb_json_doc *doc;
    mb_status st;

    MB_TRY(mb_path_join(path, sizeof path, folder, file));
    if (!mb_path_is_file(path))
        return MB_OK;
    MB_TRY(mb_json_read(path, MB_ENOTSUP, MOST_BYTES, &doc));
    st = check(mb_json_root(doc), bins);
    mb_json_free(doc);
    return st;
}

static mb_status fill(mb_json o, int64_t bins, int64_t seconds)
{
    const int64_t samples = seconds * MB_AUDIO_RATE;

    MB_TRY(mb_json_set_string(o, "feature_extractor_type", "WhisperFeatureExtractor"));
    MB_TRY(mb_json_set_string(o, "processor_class", "WhisperProcessor"));
    MB_TRY(mb_json_set_int(o, "feature_size", bins));
    MB_TRY(mb_json_set_int(o, "sampling_rate", MB_AUDIO_RATE));
    MB_TRY(mb_json_set_int(o, "hop_length", MB_MEL_HOP));
    MB_TRY(mb_json_set_int(o, "n_fft", MB_MEL_WINDOW));
    MB_TRY(mb_json_set_int(o, "chunk_length", seconds));
    MB_TRY(mb_json_set_int(o, "n_samples", samples));
    MB_TRY(mb_json_set_int(o, "nb_max_frames", samples / MB_MEL_HOP));
    MB_TRY(mb_json_set_string(o, "padding_side", "right"));
    MB_TRY(mb_json_set_real(o, "padding_value", 0.0));
    return mb_json_set_bool(o, "return_attention_mask", false);
}

mb_status mb_mel_config_write(const char *base, int64_t bins, int64_t seconds, const char *dir)
{
    char from[MB_PATH_MAX], to[MB_PATH_MAX];
    mb_json_doc *doc = NULL;
    char *text = NULL;
    size_t n;
    mb_status st;

    MB_TRY(mb_path_join(to, sizeof to, dir, file));
    MB_TRY(mb_path_join(from, sizeof from, base != NULL ? base : "", file));
    if (base != NULL && mb_path_is_file(from)) {
        MB_TRY(mb_file_read_as(from, MB_EMODEL, MOST_BYTES, &text, &n));
        st = mb_file_write_atomic(to, text, n);
        mb_free(text);
        return st;
    }
    MB_TRY(mb_json_doc_new(file, &doc));
    st = fill(mb_json_root(doc), bins, seconds);
    if (st == MB_OK)
        st = mb_json_write(mb_json_root(doc), 2, to);
    mb_json_free(doc);
    return st;
}
