/* The memory that the programs share, as src/abi.rs and src/counters.rs declare it; electrode_wire's header. */
#include "bpf.h"

#define INLINE static __attribute__((always_inline))
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)

#define PEERS 16
#define SLOTS 1024
#define BATCH_OPS 64
#define MESSAGE_BYTES 1472
#define SMALL_MESSAGE_BYTES 256
#define RING_BYTES (1 << 20)
#define OP_BITS 48
#define OP_MASK ((1ull << OP_BITS) - 1)
#define CLONE_MARK 0x454c4354
#define STALE_INTERVAL_NS 50000000ull
#define RECORD_NOTICE (~0ull)
#define TARGET_RESOLVED (1ull << 63)

enum { FLAG_STORE = 1, FLAG_ANSWER = 2, FLAG_COUNT = 4 };
enum { WAKE_ON_QUORUM = 1, WAKE_ON_STORE = 2 };
enum { MMAPABLE = 1 << 10 };
enum { PROGRAM_PREPARE, PROGRAM_PREPARE_OK };
enum { MESSAGE_PREPARE = 3, MESSAGE_PREPARE_OK = 4 };
enum { FLAG_BROADCAST = 1, VERSION = 1, MAGIC = 0x54434c45 };

struct peer {
    u64 address[2];
    u32 port, family;
};

struct block {
    u64 generation, flags, view, group, key[2];
    u32 index, replicas, quorum, primary;
    struct peer peers[PEERS];
};

struct shared {
    u64 tail, wake, stale_passed, padding[5];
    struct block blocks[2];
};

struct target {
    u64 mac;
    struct peer peer;
};

struct heard {
    u64 at, op;
};

struct record {
    u64 generation, length, words[];
};

struct header {
    u32 magic;
    u8 version, kind, sender, flags;
    u64 check, group, view, op, first, commit, client, request;
    u32 length, epoch;
};

struct entry {
    u64 client, request;
    u32 length, epoch;
};

#define HEADER_BYTES sizeof(struct header)

/* In the order of src/counters.rs. */
enum counter {
    dispatch_foreign, dispatch_other, dispatch_prepare, dispatch_prepare_ok,
    prepare_stored, prepare_acked, prepare_duplicate, prepare_fenced, prepare_group, prepare_newer,
    prepare_older_passed, prepare_gap, prepare_large, prepare_full, prepare_race, prepare_older,
    prepare_check, prepare_index, prepare_source, prepare_malformed, prepare_unanswered,
    prepare_ok_counted, prepare_ok_completed, prepare_ok_noticed, prepare_ok_full, prepare_ok_surplus,
    prepare_ok_fenced, prepare_ok_group, prepare_ok_newer, prepare_ok_no_slot, prepare_ok_race,
    prepare_ok_older, prepare_ok_check, prepare_ok_index, prepare_ok_source, prepare_ok_malformed,
    broadcast_handled, broadcast_cloned, broadcast_clone_failed, broadcast_unresolved, broadcast_unfit,
    COUNTERS
};

struct counters {
    u64 values[COUNTERS];
};

struct {
    INT(type, ARRAY);
    INT(max_entries, 1);
    INT(map_flags, MMAPABLE);
    TYPE(key, u32);
    TYPE(value, struct shared);
} shared SEC(".maps");

struct {
    INT(type, ARRAY);
    INT(max_entries, SLOTS);
    INT(map_flags, MMAPABLE);
    TYPE(key, u32);
    TYPE(value, u64);
} slots SEC(".maps");

struct {
    INT(type, ARRAY);
    INT(max_entries, PEERS);
    INT(map_flags, MMAPABLE);
    TYPE(key, u32);
    TYPE(value, struct heard);
} heard SEC(".maps");

struct {
    INT(type, ARRAY);
    INT(max_entries, PEERS);
    INT(map_flags, MMAPABLE);
    TYPE(key, u32);
    TYPE(value, struct target);
} targets SEC(".maps");

struct {
    INT(type, PERCPU_ARRAY);
    INT(max_entries, 1);
    TYPE(key, u32);
    TYPE(value, struct counters);
} counters SEC(".maps");

struct {
    INT(type, RINGBUF);
    INT(max_entries, RING_BYTES);
} ring SEC(".maps");

struct {
    INT(type, PROG_ARRAY);
    INT(max_entries, 2);
    TYPE(key, u32);
    TYPE(value, u32);
} programs SEC(".maps");

INLINE void add(enum counter which, u64 n) {
    u32 zero = 0;
    struct counters *all = map_lookup(&counters, &zero);
    if (all)
        all->values[which] += n;
}

INLINE int leave(enum counter which, int action) {
    add(which, 1);
    return action;
}

INLINE struct shared *shared_words(void) {
    u32 zero = 0;
    return map_lookup(&shared, &zero);
}

/* An addition of 0, fully ordered. A visible 0 would become an `or`, which the kernel makes a loop of. */
INLINE u64 ordered(u64 *word) {
    u64 zero = 0;
    asm volatile("" : "+r"(zero));
    return __sync_fetch_and_add(word, zero);
}

INLINE u64 compare_exchange(u64 *word, u64 expected, u64 new) {
    return __sync_val_compare_and_swap(word, expected, new);
}
