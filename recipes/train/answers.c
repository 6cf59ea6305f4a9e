/* recipes/train/answers.c - what the answers of all kinds of tasks have in common. */
#include "recipes/train/answers.h"

#include "core/path.h"

const mb_store *mb_answer_store(const mb_job *j)
{
    return mb_data_eval_store(j->data);
}

const char *mb_answer_class_name(const mb_job *j, int64_t class, int64_t n_classes)
{
    return j->recipe->label_names.n == n_classes ? j->recipe->label_names.at[class] : NULL;
}

mb_status mb_answer_group(const mb_job *j, int64_t row, mb_json object)
{
    const mb_store *s = mb_answer_store(j);

    if (j->groups != NULL)
        return mb_json_set_string(object, "group", j->groups->name[j->groups->of[row]]);
    if (s->n_sources < 2)
        return MB_OK;
    return mb_json_set_string(object, "group", mb_path_base(s->source_name[s->source[row]]));
}
