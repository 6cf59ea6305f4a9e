/* recipes/data/store_cache.h - a token store on disk: <dir>/<digest>.h5.
 *
 *     /tokens    u16 or u32 (n_tokens)    ids
 *     /mask      u8  (n_tokens)           MB_MARK_*
 *     /offsets   u64 (n_rows+1)
 *     /label     i32 (n_rows)             -1 without labels
 *     /source    i32 (n_rows), /line, /record i64 (n_rows)
 *     /labels      JSON text              names of the labels
 *     attributes of /: format, digest, counts
 *
 * Beside it <digest>.sha256 holds the digest of the file's bytes and is written last: HDF5 is given
 * only bytes that were checked. Whatever is wrong with a cached file, it is as if there were none.
 */
#ifndef MB_RECIPES_DATA_STORE_CACHE_H
#define MB_RECIPES_DATA_STORE_CACHE_H

#include "recipes/data/store.h"

/* Fills the arrays of *s, whose digest and sources are set, from the cache. *hit is false, with s as
 * it was, when there is no such file or it is damaged (which is logged). */
mb_status mb_store_cache_read(const char *dir, mb_store *s, bool *hit) MB_MUST_USE;
/* Publishes atomically; makes the folder. MB_EIO. */
mb_status mb_store_cache_write(const char *dir, const mb_store *s) MB_MUST_USE;
/* Rank 0's arrays reach the others. Collective. */
mb_status mb_store_cache_share(mb_store *s, mb_comm *comm) MB_MUST_USE;

#endif
