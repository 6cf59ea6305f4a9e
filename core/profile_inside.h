/* core/profile_inside.h - what core/profile.c and core/profile_wrap.c share. */
#ifndef MB_CORE_PROFILE_INSIDE_H
#define MB_CORE_PROFILE_INSIDE_H

#include "core/profile.h"

enum { MB_PROFILE_COMMS = 8, MB_PROFILE_DEPTH = 8 };

/* What stands in place of a communicator's operations; `ops` comes first, so that it is found from
 * them. */
struct mb_profile_comm {
    mb_comm_ops ops;
    const mb_comm_ops *inner;
    mb_comm *comm;
    mb_profile *profile;
};

struct mb_profile {
    mb_profile_row *row; /* the first is the common one */
    int n_rows, max_rows;
    int32_t *slot; /* rows by hash of their keys; 0: free */
    uint32_t n_slots;
    mb_profile_event *event;
    int n_events, max_events;
    int64_t lost;
    struct {
        mb_span span;
        double from;
        int event;
    } open[MB_PROFILE_DEPTH];
    int depth;
    double span_seconds[MB_SPAN_COUNT], kind_seconds[MB_PROFILE_KINDS];
    int64_t span_calls[MB_SPAN_COUNT];
    int64_t seen, steps; /* steps: all, counted ones */
    bool counting, tracing;
    bool busy;    /* inside a call that is noted */
    bool grouped; /* that call is a group of collectives, which began with: */
    double group_from;
    int64_t group_sent;
    double origin;
    mb_kernels kernels; /* instead of: */
    const mb_kernels *inner;
    mb_device *device; /* of the kernels */
    mb_comm *peers;    /* a communicator on that device; NULL: none */
    struct mb_profile_comm comm[MB_PROFILE_COMMS];
    int n_comms;
};

/* Whether the call that now begins is to be noted; mb_profile_leave ends it. A call inside a call is
 * not. */
bool mb_profile_enter(mb_profile *p);
/* Times of mb_clock. `call`: key, floating-point operations and bytes. */
void mb_profile_leave(mb_profile *p, double from, double to, const mb_profile_row *call);
void mb_profile_unwrap(mb_profile *p);

#endif
