/* tests/unit/test_shelf.c - repositories of a folder and of a cache: revisions, what is kept, what
 * outlives kill -9, damage, names. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/hub/base64.h"
#include "recipes/hub/html.h"
#include "recipes/hub/shelf.h"
#include "tests/unit/root_test.h"

static int n_dirs;

static const char *fresh_dir(void)
{
    static char dir[100];

    snprintf(dir, sizeof dir, "%s/%d", root, n_dirs++);
    assert_int_equal(mb_path_mkdirs(dir), MB_OK);
    return dir;
}

static void write_file(const char *dir, const char *name, const char *text)
{
    char path[MB_PATH_MAX], above[MB_PATH_MAX];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(mb_path_dir(above, sizeof above, path), MB_OK);
    assert_int_equal(mb_path_mkdirs(above), MB_OK);
    assert_int_equal(mb_file_write_atomic(path, text, strlen(text)), MB_OK);
}

static mb_shelf *opened(const char *dir)
{
    mb_shelf *s = NULL;
    const mb_status st =
        mb_shelf_open(&(mb_shelf_options){.dir = dir, .writable = true, .look_again = -1}, &s);

    if (st != MB_OK)
        fail_msg("%s", mb_status_sentence());
    return s;
}

static mb_shelf_tree *tree(mb_shelf *s, const char *id, const char *rev)
{
    mb_shelf_tree *t = NULL;
    mb_shelf_miss miss;

    if (mb_shelf_tree_get(s, MB_SHELF_MODEL, id, rev, &t, &miss) != MB_OK)
        fail_msg("%s", mb_status_sentence());
    return t;
}

static void expect_text(mb_shelf *s, const char *id, const char *rev, const char *path,
                        const char *want)
{
    mb_shelf_tree *t = tree(s, id, rev);
    char *text = NULL;
    size_t n;

    if (mb_shelf_file_text(s, MB_SHELF_MODEL, id, t, path, 1 << 20, &text, &n) != MB_OK)
        fail_msg("%s", mb_status_sentence());
    assert_string_equal(text, want);
    mb_free(text);
    mb_shelf_tree_unref(t);
}

/* `got` is set by what gave `st`, in the same list of arguments. */
static void expect_miss(mb_status st, const mb_shelf_miss *got, mb_shelf_miss want)
{
    assert_int_equal(st, MB_EDATA);
    assert_int_equal(*got, want);
    assert_string_not_equal(mb_status_sentence(), "");
    mb_status_clear();
}

static mb_shelf_change put(mb_shelf *s, const char *path, const char *text)
{
    mb_shelf_change c = {.what = MB_SHELF_PUT, .path = (char *)(uintptr_t)path};
    mb_incoming *in;
    char hex[MB_DIGEST_HEX];
    mb_digest *git;

    assert_int_equal(mb_incoming_new(mb_shelf_objects(s), 1 << 20, &in), MB_OK);
    assert_int_equal(mb_incoming_add(in, text, strlen(text)), MB_OK);
    assert_int_equal(mb_incoming_end(in, NULL, c.sha256, &c.size), MB_OK);
    mb_incoming_free(in);
    assert_int_equal(mb_digest_new_git_blob((int64_t)strlen(text), &git), MB_OK);
    assert_int_equal(mb_digest_add(git, text, strlen(text)), MB_OK);
    assert_int_equal(mb_digest_end_hex(git, hex), MB_OK);
    mb_digest_free(git);
    snprintf(c.oid, sizeof c.oid, "%.40s", hex);
    return c;
}

static mb_status commit(mb_shelf *s, const char *id, const char *parent, const mb_shelf_change *c,
                        size_t n, char made[MB_SHELF_OID], mb_shelf_miss *miss)
{
    mb_shelf_tree *t = NULL;
    const mb_status st = mb_shelf_commit(s, MB_SHELF_MODEL, id,
                                         &(mb_shelf_draft){.branch = "main",
                                                           .parent = parent,
                                                           .title = "a commit",
                                                           .message = "",
                                                           .author = "test",
                                                           .changes = c,
                                                           .n = n},
                                         &t, miss);

    if (st == MB_OK)
        memcpy(made, t->commit, MB_SHELF_OID);
    mb_shelf_tree_unref(t);
    return st;
}

static void must_put(mb_shelf *s, const char *id, const char *path, const char *text,
                     char made[MB_SHELF_OID])
{
    const mb_shelf_change c = put(s, path, text);
    mb_shelf_miss miss;

    if (commit(s, id, NULL, &c, 1, made, &miss) != MB_OK)
        fail_msg("%s", mb_status_sentence());
}

static void names_of_others_are_judged(void **state)
{
    static const char *const ids[] = {"name", "org/name", "o-1/n_2.x"};
    static const char *const bad_ids[] = {"",     "/",      "a/",    "/a",   "a/b/c",
                                          "a--b", "a..b",   ".a",    "a.",   "-a",
                                          "a b",  "a/../b", "x.git", "a\\b", "é"};
    static const char *const bad_paths[] = {"",     "/",      "/a",     "a/",          "a//b",
                                            "..",   "../a",   "a/../b", "a/./b",       "a\\b",
                                            "a\nb", ".git/x", "a/.git", ".mbuyu-hub/x"};
    static const char *const bad_refs[] = {"",    "a b",  "a..b", "-a", "a~1",
                                           "a:b", "../a", "a?",   "a*"};

    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        assert_true(mb_shelf_is_id(ids[i]));
    for (size_t i = 0; i < sizeof bad_ids / sizeof *bad_ids; i++)
        assert_false(mb_shelf_is_id(bad_ids[i]));
    for (size_t i = 0; i < sizeof bad_paths / sizeof *bad_paths; i++)
        assert_false(mb_shelf_is_path(bad_paths[i]));
    for (size_t i = 0; i < sizeof bad_refs / sizeof *bad_refs; i++)
        assert_false(mb_shelf_is_ref(bad_refs[i]));
    assert_true(mb_shelf_is_path("sub/na jina é.txt") && mb_shelf_is_path(".gitattributes"));
    assert_true(mb_shelf_is_ref("main") && mb_shelf_is_ref("refs/pr/1"));
}

static void a_folder_has_a_commit_that_stays_the_same(void **state)
{
    const char *dir = fresh_dir();
    char first[MB_SHELF_OID];
    mb_shelf *s;
    mb_shelf_tree *t;

    write_file(dir, "models/org/name/README.md",
               "---\nlicense: mit\nlanguage: [no, sw]\n---\nhi\n");
    write_file(dir, "models/org/name/sub/a.txt", "a\n");
    write_file(dir, "models/alone/config.json", "{}");
    write_file(dir, "models/org/name/.git/HEAD", "not served");
    s = opened(dir);
    t = tree(s, "org/name", "main");
    assert_int_equal(t->n, 2);
    assert_string_equal(t->card, "{\"license\":\"mit\",\"language\":[\"no\",\"sw\"]}");
    memcpy(first, t->commit, sizeof first);
    mb_shelf_tree_unref(t);
    expect_text(s, "org/name", "main", "sub/a.txt", "a\n");
    expect_text(s, "alone", "main", "config.json", "{}");
    mb_shelf_close(s);
    s = opened(dir);
    t = tree(s, "org/name", "main");
    assert_string_equal(t->commit, first);
    mb_shelf_tree_unref(t);
    t = tree(s, "org/name", first);
    mb_shelf_tree_unref(t);
    mb_shelf_close(s);
}

/* A file with the size, time and inode it had is not read again; any of them differing, it is. */
static void digests_are_kept(void **state)
{
    const char *dir = fresh_dir();
    char path[MB_PATH_MAX];
    struct stat before;
    mb_shelf *s;
    mb_shelf_tree *t;
    char sha[MB_DIGEST_HEX], *text;
    size_t n;

    write_file(dir, "models/org/name/a.txt", "one");
    s = opened(dir);
    t = tree(s, "org/name", "main");
    memcpy(sha, t->files[0].sha256, sizeof sha);
    mb_shelf_tree_unref(t);
    mb_shelf_close(s);
    snprintf(path, sizeof path, "%s/models/org/name/a.txt", dir);
    assert_int_equal(stat(path, &before), 0);
    const int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "two", 3, 0), 3);
    const struct timespec times[] = {before.st_atim, before.st_mtim};
    assert_int_equal(futimens(fd, times), 0);
    close(fd);
    s = opened(dir);
    t = tree(s, "org/name", "main");
    assert_string_equal(t->files[0].sha256, sha); /* remembered, though no longer true */
    mb_shelf_tree_unref(t);
    assert_int_equal(utimensat(AT_FDCWD, path, NULL, 0), 0);
    assert_int_equal(mb_shelf_look(s), MB_OK);
    t = tree(s, "org/name", "main");
    assert_string_not_equal(t->files[0].sha256, sha);
    assert_int_equal(mb_shelf_file_text(s, MB_SHELF_MODEL, "org/name", t, "a.txt", 100, &text, &n),
                     MB_OK);
    assert_string_equal(text, "two");
    mb_free(text);
    mb_shelf_tree_unref(t);
    mb_shelf_close(s);
}

static void a_changed_folder_makes_a_commit(void **state)
{
    const char *dir = fresh_dir();
    mb_shelf *s;
    mb_shelf_tree *first, *t;
    mb_shelf_miss miss;
    char path[MB_PATH_MAX];
    int fd;

    write_file(dir, "models/org/name/a.txt", "one");
    write_file(dir, "models/org/name/b.txt", "stays");
    s = opened(dir);
    first = tree(s, "org/name", "main");
    write_file(dir, "models/org/name/a.txt", "another");
    write_file(dir, "models/org/name/c.txt", "new");
    assert_int_equal(mb_shelf_look(s), MB_OK);
    t = tree(s, "org/name", "main");
    assert_string_equal(t->parent, first->commit);
    assert_string_equal(mb_shelf_tree_find(t, "b.txt")->last, first->commit);
    assert_string_equal(mb_shelf_tree_find(t, "a.txt")->last, t->commit);
    mb_shelf_tree_unref(t);
    expect_text(s, "org/name", "main", "a.txt", "another");
    expect_text(s, "org/name", first->commit, "b.txt", "stays");
    expect_miss(mb_shelf_file_open(s, MB_SHELF_MODEL, "org/name", first,
                                   mb_shelf_tree_find(first, "a.txt"), &fd, &miss),
                &miss, MB_SHELF_NO_FILE);
    snprintf(path, sizeof path, "%s/models/org/name/c.txt", dir);
    unlink(path);
    assert_int_equal(mb_shelf_look(s), MB_OK);
    t = tree(s, "org/name", "main");
    assert_null(mb_shelf_tree_find(t, "c.txt"));
    mb_shelf_tree_unref(t);
    mb_shelf_tree_unref(first);
    mb_shelf_close(s);
}

static void commits_are_kept_with_what_they_replace(void **state)
{
    const char *dir = fresh_dir();
    char first[MB_SHELF_OID], second[MB_SHELF_OID], path[MB_PATH_MAX], *text;
    mb_shelf *s;
    mb_shelf_tree *t;
    mb_shelf_miss miss;
    size_t n;

    write_file(dir, "models/org/name/a.txt", "one");
    s = opened(dir);
    t = tree(s, "org/name", "main");
    memcpy(first, t->commit, sizeof first);
    mb_shelf_tree_unref(t);
    must_put(s, "org/name", "a.txt", "pushed", second);
    const mb_shelf_change late = put(s, "b.txt", "late");
    char made[MB_SHELF_OID];
    const mb_status st = commit(s, "org/name", first, &late, 1, made, &miss);
    expect_miss(st, &miss, MB_SHELF_MOVED_ON);
    must_put(s, "org/name", "a.txt", "pushed", made);
    assert_string_equal(made, second); /* nothing changed, no commit */
    snprintf(path, sizeof path, "%s/models/org/name/a.txt", dir);
    assert_int_equal(mb_file_read(path, 100, &text, &n), MB_OK);
    assert_string_equal(text, "pushed"); /* the folder follows */
    mb_free(text);
    assert_int_equal(mb_shelf_look(s), MB_OK);
    mb_shelf_close(s);
    s = opened(dir);
    expect_text(s, "org/name", "main", "a.txt", "pushed");
    expect_text(s, "org/name", first, "a.txt", "one");
    t = tree(s, "org/name", "main");
    assert_string_equal(t->commit, second); /* what we put there is no change of the folder */
    mb_shelf_tree_unref(t);
    mb_shelf_close(s);
}

/* Files that looks leave out are content all the same when somebody pushed them. */
static void what_looks_leave_out_stays_when_pushed(void **state)
{
    static const char *const paths[] = {"uv.lock",       "a.tmp",        "sub/w.part",
                                        "w.incomplete",  ".cache/x.txt", "__pycache__/m.pyc",
                                        "a/.cache/b.txt"};
    enum { N = sizeof paths / sizeof *paths };
    char dir[100], made[MB_SHELF_OID], path[MB_PATH_MAX];
    mb_shelf *s;
    mb_shelf_tree *t;

    snprintf(dir, sizeof dir, "%s", fresh_dir());
    write_file(dir, "models/org/name/a.txt", "one");
    s = opened(dir);
    for (size_t i = 0; i < N; i++)
        must_put(s, "org/name", paths[i], "pushed", made);
    for (int again = 0; again < 2; again++) {
        write_file(dir, "models/org/name/b.txt", again ? "two" : "one"); /* something to look at */
        assert_int_equal(mb_shelf_look(s), MB_OK);
        for (size_t i = 0; i < N; i++)
            expect_text(s, "org/name", "main", paths[i], "pushed");
        mb_shelf_close(s);
        s = opened(dir);
    }
    must_put(s, "org/name", "uv.lock", "pushed again", made);
    t = tree(s, "org/name", "main");
    assert_int_equal(t->n, N + 2);
    mb_shelf_tree_unref(t);
    snprintf(path, sizeof path, "%s/.mbuyu-hub/removed", dir);
    assert_false(mb_path_exists(path)); /* all of it was ours */
    mb_shelf_close(s);
}

static void expect_removed(const char *dir, const char *want)
{
    char removed[MB_PATH_MAX], path[MB_PATH_MAX], *text;
    char **names;
    size_t n, bytes;
    bool found = false;

    snprintf(removed, sizeof removed, "%s/.mbuyu-hub/removed", dir);
    assert_int_equal(mb_path_list(removed, &names, &n), MB_OK);
    for (size_t i = 0; i < n && !found; i++) {
        assert_int_equal(mb_path_join(path, sizeof path, removed, names[i]), MB_OK);
        assert_int_equal(mb_file_read(path, 1000, &text, &bytes), MB_OK);
        found = strcmp(text, want) == 0;
        mb_free(text);
    }
    mb_path_list_free(names, n);
    assert_true(found);
}

/* What was changed in the folder and never looked at is put away, not lost. */
static void a_push_destroys_nothing_of_the_folder(void **state)
{
    char dir[100], made[MB_SHELF_OID];
    mb_shelf *s;
    mb_shelf_miss miss;

    snprintf(dir, sizeof dir, "%s", fresh_dir());
    write_file(dir, "models/org/name/a.txt", "one");
    write_file(dir, "models/org/name/b.txt", "one");
    write_file(dir, "models/org/name/c.txt.tmp", "of another program");
    s = opened(dir);
    write_file(dir, "models/org/name/a.txt", "edited");
    must_put(s, "org/name", "a.txt", "pushed", made);
    expect_removed(dir, "edited");
    write_file(dir, "models/org/name/new.txt", "also new here");
    must_put(s, "org/name", "new.txt", "pushed", made);
    expect_removed(dir, "also new here");
    write_file(dir, "models/org/name/b.txt", "two");
    const mb_shelf_change gone = {.what = MB_SHELF_DELETE, .path = (char[]){"b.txt"}};
    assert_int_equal(commit(s, "org/name", NULL, &gone, 1, made, &miss), MB_OK);
    expect_removed(dir, "two");
    must_put(s, "org/name", "c.txt", "pushed", made); /* its temporary name is another */
    char path[MB_PATH_MAX], *text;
    size_t n;
    snprintf(path, sizeof path, "%s/models/org/name/c.txt.tmp", dir);
    assert_int_equal(mb_file_read(path, 100, &text, &n), MB_OK);
    assert_string_equal(text, "of another program");
    mb_free(text);
    mb_shelf_close(s);
}

/* Whoever may write to a file of the folder changes no commit by it. */
static void edits_in_place_change_no_object(void **state)
{
    char dir[100], path[MB_PATH_MAX], made[MB_SHELF_OID];
    mb_shelf *s;

    snprintf(dir, sizeof dir, "%s", fresh_dir());
    s = opened(dir);
    mb_shelf_miss miss;
    assert_int_equal(mb_shelf_create(s, MB_SHELF_MODEL, "org/name", false, &miss), MB_OK);
    must_put(s, "org/name", "a.txt", "pushed", made);
    snprintf(path, sizeof path, "%s/models/org/name/a.txt", dir);
    const int fd = open(path, O_WRONLY);
    if (fd >= 0) { /* root, or a copy; a link to the object is read only for others */
        assert_int_equal(pwrite(fd, "PUSHED", 6, 0), 6);
        close(fd);
    }
    expect_text(s, "org/name", made, "a.txt", "pushed");
    mb_shelf_close(s);
}

static void a_copy_has_content_of_its_own(void **state)
{
    char dir[100], made[MB_SHELF_OID], path[MB_PATH_MAX];
    mb_shelf_change copy = {
        .what = MB_SHELF_COPY, .path = (char[]){"b.txt"}, .from = (char[]){"a.txt"}};
    mb_shelf *s;
    mb_shelf_miss miss;

    snprintf(dir, sizeof dir, "%s", fresh_dir());
    write_file(dir, "models/org/name/a.txt", "one");
    s = opened(dir);
    assert_int_equal(commit(s, "org/name", NULL, &copy, 1, made, &miss), MB_OK);
    expect_text(s, "org/name", "main", "b.txt", "one");
    snprintf(path, sizeof path, "%s/models/org/name/b.txt", dir);
    assert_true(mb_path_is_file(path));
    snprintf(path, sizeof path, "%s/models/org/name/a.txt", dir);
    write_file(dir, "models/org/name/a.txt", "two");
    expect_text(s, "org/name", "main", "b.txt", "one");
    /* what is in the folder no longer, and was never kept, cannot be copied */
    write_file(dir, "models/org/name/c.txt", "c");
    assert_int_equal(mb_shelf_look(s), MB_OK);
    snprintf(path, sizeof path, "%s/models/org/name/c.txt", dir);
    assert_int_equal(unlink(path), 0);
    copy.from = (char[]){"c.txt"};
    copy.path = (char[]){"d.txt"};
    expect_miss(commit(s, "org/name", NULL, &copy, 1, made, &miss), &miss, MB_SHELF_NO_FILE);
    mb_shelf_close(s);
}

static void a_move_that_fails_changes_nothing(void **state)
{
    char dir[100], path[MB_PATH_MAX], first[MB_SHELF_OID];
    mb_shelf *s;
    mb_shelf_tree *t;
    mb_shelf_miss miss;

    snprintf(dir, sizeof dir, "%s", fresh_dir());
    write_file(dir, "models/org/name/a.txt", "one");
    s = opened(dir);
    t = tree(s, "org/name", "main");
    memcpy(first, t->commit, sizeof first);
    mb_shelf_tree_unref(t);
    write_file(dir, "models/else", "a file where the folder of an organisation would be");
    assert_int_equal(mb_shelf_move(s, MB_SHELF_MODEL, "org/name", "else/name", &miss), MB_EIO);
    mb_status_clear();
    expect_text(s, "org/name", "main", "a.txt", "one");
    mb_shelf_close(s);
    snprintf(path, sizeof path, "%s/models/else", dir);
    assert_int_equal(unlink(path), 0);
    s = opened(dir);
    t = tree(s, "org/name", first);
    mb_shelf_tree_unref(t);
    expect_miss(mb_shelf_tree_get(s, MB_SHELF_MODEL, "else/name", "main", &t, &miss), &miss,
                MB_SHELF_NO_REPO);
    mb_shelf_close(s);
}

/* The store on another file system: folders cannot be renamed into it, files neither. */
static void a_deletion_works_across_file_systems(void **state)
{
    char dir[100], store[] = "/dev/shm/mb_shelf_XXXXXX", path[MB_PATH_MAX], made[MB_SHELF_OID];
    struct stat a, b;
    mb_shelf *s;
    mb_shelf_miss miss;
    char **names;
    size_t n;

    snprintf(dir, sizeof dir, "%s", fresh_dir());
    if (stat("/dev/shm", &a) != 0 || stat(dir, &b) != 0 || a.st_dev == b.st_dev ||
        mkdtemp(store) == NULL)
        skip();
    write_file(dir, "models/org/name/a.txt", "one");
    const mb_shelf_options o = {.dir = dir, .store = store, .writable = true, .look_again = -1};
    assert_int_equal(mb_shelf_open(&o, &s), MB_OK);
    write_file(dir, "models/org/name/a.txt", "edited");
    must_put(s, "org/name", "a.txt", "pushed", made);
    expect_text(s, "org/name", "main", "a.txt", "pushed");
    snprintf(path, sizeof path, "%s/removed", store);
    assert_int_equal(mb_path_list(path, &names, &n), MB_OK);
    assert_int_equal(n, 1);
    mb_path_list_free(names, n);
    assert_int_equal(mb_shelf_delete(s, MB_SHELF_MODEL, "org/name", &miss), MB_OK);
    assert_int_equal(mb_shelf_look(s), MB_OK);
    snprintf(path, sizeof path, "%s/models/org/name", dir);
    assert_false(mb_path_exists(path));
    snprintf(path, sizeof path, "%s/.mbuyu-removed", dir);
    assert_int_equal(mb_path_list(path, &names, &n), MB_OK);
    assert_int_equal(n, 1);
    mb_path_list_free(names, n);
    mb_shelf_close(s);
    assert_int_equal(mb_path_remove_tree(store), MB_OK);
}

/* A link to a blob by git's name says too little: the file is read. */
static void a_link_by_gits_name_is_read(void **state)
{
    static const char git[] = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0"; /* of "hello" */
    static const char sha256[] = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    char dir[100], name[200], path[MB_PATH_MAX], to[200];
    mb_shelf *s;
    mb_shelf_tree *t;

    snprintf(dir, sizeof dir, "%s", fresh_dir());
    snprintf(name, sizeof name, "blobs/%s", git);
    write_file(dir, name, "hello");
    write_file(dir, "models/org/name/a.txt", "one");
    snprintf(path, sizeof path, "%s/models/org/name/b.txt", dir);
    snprintf(to, sizeof to, "../../../blobs/%s", git);
    assert_int_equal(symlink(to, path), 0);
    s = opened(dir);
    t = tree(s, "org/name", "main");
    assert_string_equal(mb_shelf_tree_find(t, "b.txt")->sha256, sha256);
    assert_string_equal(mb_shelf_tree_find(t, "b.txt")->oid, git);
    mb_shelf_tree_unref(t);
    expect_text(s, "org/name", "main", "b.txt", "hello");
    mb_shelf_close(s);
}

static void wrong_commits_are_refused(void **state)
{
    static const char *const paths[] = {"../x", "/etc/passwd", "a/../../x", ".git/config",
                                        "a.txt/b"};
    const char *dir = fresh_dir();
    mb_shelf *s = opened(dir);
    char made[MB_SHELF_OID];
    mb_shelf_miss miss;

    assert_int_equal(mb_shelf_create(s, MB_SHELF_MODEL, "org/new", false, &miss), MB_OK);
    expect_miss(mb_shelf_create(s, MB_SHELF_MODEL, "org/new", false, &miss), &miss,
                MB_SHELF_EXISTS);
    must_put(s, "org/new", "a.txt", "text", made);
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        mb_shelf_change c = put(s, paths[i], "x");
        expect_miss(commit(s, "org/new", NULL, &c, 1, made, &miss), &miss, MB_SHELF_WRONG);
    }
    mb_shelf_change c = put(s, "b.txt", "x");
    memset(c.sha256, '0', 64); /* never uploaded */
    expect_miss(commit(s, "org/new", NULL, &c, 1, made, &miss), &miss, MB_SHELF_WRONG);
    expect_miss(commit(s, "org/none", NULL, &c, 1, made, &miss), &miss, MB_SHELF_NO_REPO);
    mb_shelf_close(s);
}

static void a_cache_is_served_as_it_is(void **state)
{
    static const char sha[] = "0123456789abcdef0123456789abcdef01234567";
    static const char etag[] = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    const char *dir = fresh_dir();
    char path[MB_PATH_MAX], to[200], made[MB_SHELF_OID];
    mb_shelf *s;
    mb_shelf_tree *t;
    mb_shelf_miss miss;
    mb_shelf_brief b;

    snprintf(path, sizeof path, "hub/models--org--name/blobs/%s", etag);
    write_file(dir, path, "hello");
    write_file(dir, "hub/models--org--name/refs/main", sha);
    snprintf(path, sizeof path, "%s/hub/models--org--name/snapshots/%s", dir, sha);
    assert_int_equal(mb_path_mkdirs(path), MB_OK);
    snprintf(path, sizeof path, "%s/hub/models--org--name/snapshots/%s/w.bin", dir, sha);
    snprintf(to, sizeof to, "../../blobs/%s", etag);
    assert_int_equal(symlink(to, path), 0);
    s = opened(dir);
    t = tree(s, "org/name", "main");
    assert_string_equal(t->commit, sha);
    assert_string_equal(t->files[0].sha256, etag);
    assert_true(t->files[0].lfs);
    mb_shelf_tree_unref(t);
    expect_text(s, "org/name", "0123456", "w.bin", "hello");
    assert_int_equal(mb_shelf_find(s, MB_SHELF_MODEL, "org/name", &b, &miss), MB_OK);
    assert_true(b.copy);
    mb_shelf_brief_release(&b);
    const mb_shelf_change c = put(s, "x.txt", "x");
    expect_miss(commit(s, "org/name", NULL, &c, 1, made, &miss), &miss, MB_SHELF_READ_ONLY);
    mb_shelf_close(s);
}

static void damage_is_named_and_others_are_served(void **state)
{
    const char *dir = fresh_dir();
    char path[MB_PATH_MAX], commit_id[MB_SHELF_OID];
    mb_shelf *s;
    mb_shelf_tree *t;
    mb_shelf_miss miss;

    write_file(dir, "models/org/good/a.txt", "good");
    write_file(dir, "models/org/bad/a.txt", "bad");
    s = opened(dir);
    t = tree(s, "org/bad", "main");
    memcpy(commit_id, t->commit, sizeof commit_id);
    mb_shelf_tree_unref(t);
    mb_shelf_close(s);
    snprintf(path, sizeof path, "%s/.mbuyu-hub/repos/models--org--bad/commits/%s.json", dir,
             commit_id);
    const int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "9", 1, 12), 1);
    close(fd);
    s = opened(dir);
    expect_text(s, "org/good", "main", "a.txt", "good");
    assert_int_equal(mb_shelf_tree_get(s, MB_SHELF_MODEL, "org/bad", "main", &t, &miss), MB_EDATA);
    assert_int_equal(miss, MB_SHELF_NO_MISS);
    assert_non_null(strstr(mb_status_sentence(), commit_id));
    mb_status_clear();
    mb_shelf_brief *list;
    size_t n;
    assert_int_equal(mb_shelf_list(s, MB_SHELF_MODEL, &list, &n), MB_OK);
    assert_int_equal(n, 1);
    assert_string_equal(list[0].id, "org/good");
    mb_shelf_brief_release(&list[0]);
    mb_free(list);
    mb_shelf_close(s);
}

/* A repository whose record cannot be read is not there; and nobody makes it anew over what is left. */
static void a_damaged_record_takes_out_its_repository(void **state)
{
    static const char *const texts[] = {"", "{", "{}", "{\"private\": true}",
                                        "{\"private\": true, \"refs\": [{\"name\": \"../x\"}]}"};
    char dir[100], path[MB_PATH_MAX], made[MB_SHELF_OID], *text;
    mb_shelf *s;
    mb_shelf_tree *t;
    mb_shelf_miss miss;
    size_t n;

    snprintf(dir, sizeof dir, "%s", fresh_dir());
    write_file(dir, "models/org/good/a.txt", "good");
    s = opened(dir);
    assert_int_equal(mb_shelf_create(s, MB_SHELF_MODEL, "org/secret", true, &miss), MB_OK);
    must_put(s, "org/secret", "a.txt", "secret", made);
    mb_shelf_close(s);
    snprintf(path, sizeof path, "%s/.mbuyu-hub/repos/models--org--secret/state.json", dir);
    assert_int_equal(mb_file_read(path, 10000, &text, &n), MB_OK);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_int_equal(mb_file_write_atomic(path, texts[i], strlen(texts[i])), MB_OK);
        s = opened(dir);
        expect_text(s, "org/good", "main", "a.txt", "good");
        for (int look = 0; look < 2; look++) {
            expect_miss(mb_shelf_tree_get(s, MB_SHELF_MODEL, "org/secret", "main", &t, &miss),
                        &miss, MB_SHELF_NO_REPO);
            assert_int_equal(mb_shelf_look(s), MB_OK);
        }
        assert_int_equal(mb_shelf_create(s, MB_SHELF_MODEL, "org/secret", false, &miss), MB_EDATA);
        mb_status_clear();
        mb_shelf_close(s);
    }
    assert_int_equal(mb_file_write_atomic(path, text, n), MB_OK);
    mb_free(text);
    s = opened(dir);
    expect_text(s, "org/secret", "main", "a.txt", "secret");
    mb_shelf_close(s);
}

static void one_process_has_a_store(void **state)
{
    const char *dir = fresh_dir();
    mb_shelf *s = opened(dir), *other;

    assert_int_equal(
        mb_shelf_open(&(mb_shelf_options){.dir = dir, .writable = true, .look_again = -1}, &other),
        MB_EIO);
    assert_non_null(strstr(mb_status_sentence(), "another hub"));
    mb_status_clear();
    mb_shelf_close(s);
}

enum { WRITERS = 4, EACH = 8 };

static void *write_some(void *arg)
{
    static atomic_int next;
    mb_shelf *s = arg;
    const int who = atomic_fetch_add(&next, 1);
    char path[40], made[MB_SHELF_OID];
    mb_shelf_miss miss;

    for (int i = 0; i < EACH; i++) {
        snprintf(path, sizeof path, "w%d/%d.txt", who, i);
        const mb_shelf_change c = put(s, path, path);
        if (commit(s, "org/many", NULL, &c, 1, made, &miss) != MB_OK)
            return (void *)1;
    }
    return NULL;
}

static void writers_at_once_lose_nothing(void **state)
{
    mb_shelf *s = opened(fresh_dir());
    pthread_t threads[WRITERS];
    mb_shelf_tree *t;
    mb_shelf_miss miss;
    void *failed;
    int commits = 0;

    assert_int_equal(mb_shelf_create(s, MB_SHELF_MODEL, "org/many", false, &miss), MB_OK);
    for (int i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_some, s), 0);
    for (int i = 0; i < WRITERS; i++) {
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    t = tree(s, "org/many", "main");
    assert_int_equal(t->n, WRITERS * EACH);
    while (t->parent[0] != '\0') {
        mb_shelf_tree *parent = tree(s, "org/many", t->parent);
        mb_shelf_tree_unref(t);
        t = parent;
        commits++;
    }
    assert_int_equal(commits, WRITERS * EACH);
    mb_shelf_tree_unref(t);
    mb_shelf_close(s);
}

/* A child commits and says on a pipe which are done, until it is killed. */
static void commit_until_killed(const char *dir, int say, int round)
{
    mb_shelf *s = opened(dir);
    char path[40], made[MB_SHELF_OID];

    for (int i = 0; i < 10000; i++) {
        snprintf(path, sizeof path, "r%d/%d.txt", round, i);
        must_put(s, "org/killed", path, path, made);
        must_put(s, "org/killed", "same.txt", path, made);
        if (write(say, &i, sizeof i) != sizeof i)
            break;
    }
    _exit(1);
}

static void kill_9_loses_no_commit_that_was_done(void **state)
{
    char dir[100];
    mb_shelf_miss miss;
    unsigned moment = 12345;
    int total = 0;

    snprintf(dir, sizeof dir, "%s", fresh_dir());
    mb_shelf *s = opened(dir);
    assert_int_equal(mb_shelf_create(s, MB_SHELF_MODEL, "org/killed", false, &miss), MB_OK);
    mb_shelf_close(s);
    for (int round = 0; round < 8; round++) {
        int ends[2], i, last = -1, status;
        char path[40];
        assert_int_equal(pipe(ends), 0);
        const pid_t child = fork();
        if (child == 0)
            commit_until_killed(dir, ends[1], round);
        close(ends[1]);
        moment = moment * 1103515245u + 12345u;
        usleep(100000 + (moment >> 8) % 400000);
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        while (read(ends[0], &i, sizeof i) == sizeof i)
            last = i;
        close(ends[0]);
        s = opened(dir);
        mb_shelf_tree *t = tree(s, "org/killed", "main");
        for (i = 0; i <= last; i++) {
            snprintf(path, sizeof path, "r%d/%d.txt", round, i);
            assert_non_null(mb_shelf_tree_find(t, path));
        }
        for (size_t k = 0; k < t->n; k++) /* what it names is there, whole */
            if (strcmp(t->files[k].path, "same.txt") != 0)
                expect_text(s, "org/killed", "main", t->files[k].path, t->files[k].path);
        total += last + 1;
        mb_shelf_tree_unref(t);
        mb_shelf_close(s);
    }
    assert_true(total > 0);
}

static void parts_become_an_object(void **state)
{
    static const char sha[] = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    static const char nothing[] =
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    mb_objects *o;
    mb_incoming *in;
    char got[MB_DIGEST_HEX];
    int64_t size;

    assert_int_equal(mb_objects_open(fresh_dir(), &o), MB_OK);
    for (int part = 2; part >= 1; part--) {
        assert_int_equal(mb_incoming_new(o, 3, &in), MB_OK);
        assert_int_equal(mb_incoming_add(in, part == 1 ? "hel" : "lo", part == 1 ? 3 : 2), MB_OK);
        assert_int_equal(mb_incoming_end_part(in, sha, part, part == 1 ? 3 : 2, got), MB_OK);
        mb_incoming_free(in);
    }
    assert_false(mb_objects_has(o, sha, &size));
    assert_int_equal(mb_objects_join(o, sha, 5, 2), MB_OK);
    assert_true(mb_objects_has(o, sha, &size) && size == 5);
    assert_int_equal(mb_objects_join(o, sha, 5, 2), MB_EDATA); /* the parts are gone */
    mb_status_clear();
    assert_int_equal(mb_objects_join(o, nothing, 0, 0), MB_EDATA);
    assert_false(mb_objects_has(o, nothing, &size));
    mb_status_clear();
    assert_int_equal(mb_incoming_new(o, 5, &in), MB_OK);
    assert_int_equal(mb_incoming_add(in, "helLo", 5), MB_OK);
    assert_int_equal(mb_incoming_add(in, "!", 1), MB_EDATA);
    mb_status_clear();
    assert_int_equal(mb_incoming_end(in, sha, got, &size), MB_EDATA);
    mb_status_clear();
    mb_incoming_free(in);
    mb_objects_close(o);
}

static void base64_is_read_or_refused(void **state)
{
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"", ""},    {"YQ==", "a"}, {"YWI=", "ab"}, {"YWJj", "abc"}, {"+/+/", "\xfb\xff\xbf"},
        {"a", NULL}, {"YQ=", NULL}, {"Y===", NULL}, {"Y Q=", NULL},  {"YQ==YQ==", NULL}};
    uint8_t out[32];
    size_t n;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const bool good = mb_base64_read(rows[i].text, strlen(rows[i].text), out, &n);
        assert_int_equal(good, rows[i].want != NULL);
        if (good)
            assert_int_equal(n, strlen(rows[i].want));
        if (good)
            assert_memory_equal(out, rows[i].want, n);
    }
}

/* Nothing of a card becomes an element or an attribute but what Markdown has. */
static void markdown_is_escaped(void **state)
{
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"# T <b>", "<h2>T &lt;b&gt;</h2>\n"},
        {"a *b* **c** `d<`", "<p>a <em>b</em> <strong>c</strong> <code>d&lt;</code></p>\n"},
        {"<script>x</script>", "<p>&lt;script&gt;x&lt;/script&gt;</p>\n"},
        {"[a](javascript:x)", "<p>a</p>\n"},
        {"[a](https://x.org/\"onx=)",
         "<p><a rel=\"noreferrer nofollow\" href=\"https://x.org/&quot;onx=\">a</a></p>\n"},
        {"![p](https://x.org/p.png)", "<p>p</p>\n"},
        {"---\nt: <x>\n---\n- a\n- b\n1. c",
         "<ul>\n<li>a</li>\n<li>b</li>\n</ul>\n<ol>\n<li>c</li>\n</ol>\n"},
        {"```\n<&\n```\nz", "<pre><code>&lt;&amp;\n</code></pre>\n<p>z</p>\n"},
        {"**a", "<p>**a</p>\n"},
        {"[a](b", "<p>[a](b</p>\n"},
        {"|a|b|\n|-|-|\n|1|<2|", "<div class=\"wide\"><table>\n<tr><th>a</th><th>b</th></tr>\n"
                                 "<tr><td>1</td><td>&lt;2</td></tr>\n</table></div>\n"},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        mb_bytes h = {0};
        assert_int_equal(mb_html_markdown(&h, rows[i].text, strlen(rows[i].text)), MB_OK);
        assert_int_equal(mb_bytes_end(&h), MB_OK);
        assert_string_equal(h.p, rows[i].want);
        mb_bytes_release(&h);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_others_are_judged),
        cmocka_unit_test(a_folder_has_a_commit_that_stays_the_same),
        cmocka_unit_test(digests_are_kept),
        cmocka_unit_test(a_changed_folder_makes_a_commit),
        cmocka_unit_test(commits_are_kept_with_what_they_replace),
        cmocka_unit_test(what_looks_leave_out_stays_when_pushed),
        cmocka_unit_test(a_push_destroys_nothing_of_the_folder),
        cmocka_unit_test(edits_in_place_change_no_object),
        cmocka_unit_test(a_copy_has_content_of_its_own),
        cmocka_unit_test(a_move_that_fails_changes_nothing),
        cmocka_unit_test(a_deletion_works_across_file_systems),
        cmocka_unit_test(a_link_by_gits_name_is_read),
        cmocka_unit_test(wrong_commits_are_refused),
        cmocka_unit_test(a_cache_is_served_as_it_is),
        cmocka_unit_test(damage_is_named_and_others_are_served),
        cmocka_unit_test(a_damaged_record_takes_out_its_repository),
        cmocka_unit_test(one_process_has_a_store),
        cmocka_unit_test(writers_at_once_lose_nothing),
        cmocka_unit_test(kill_9_loses_no_commit_that_was_done),
        cmocka_unit_test(parts_become_an_object),
        cmocka_unit_test(base64_is_read_or_refused),
        cmocka_unit_test(markdown_is_escaped),
    };

    return cmocka_run_group_tests(tests, make_root, remove_root);
}
