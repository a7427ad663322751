/* What the programs here need of linux/bpf.h and libbpf's headers, so that nothing but clang has to be installed. */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long s64;

#define SEC(name) __attribute__((section(name), used))
#define INT(name, value) int (*name)[value]
#define TYPE(name, value) typeof(value) *name

enum { XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX };
enum { HASH = 1, ARRAY = 2, PROG_ARRAY = 3, PERCPU_ARRAY = 6, LRU_HASH = 9, LPM_TRIE = 11, RINGBUF = 27 };

struct xdp_md {
    u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};

static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static long (*const map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*const tail_call)(void *ctx, void *map, u32 index) = (void *)12;
static long (*const adjust_head)(struct xdp_md *ctx, int by) = (void *)44;
static void *(*const ringbuf_reserve)(void *ring, u64 size, u64 flags) = (void *)131;
static void (*const ringbuf_submit)(void *record, u64 flags) = (void *)132;

#define be16(value) __builtin_bswap16(value)

/* Not packed: nothing in them needs it, and clang would read packed fields byte by byte. */
struct ethernet {
    u8 destination[6], source[6];
    u16 type;
};

struct ipv4 {
    u8 version_length, tos;
    u16 length, identification, fragment;
    u8 ttl, protocol;
    u16 checksum;
    u32 source, destination;
};

struct udp {
    u16 source, destination, length, checksum;
};

struct tcp {
    u16 source, destination;
    u32 sequence, acknowledgement;
    u8 offset, flags;
    u16 window, checksum, urgent;
};

char licence_text[] SEC("license") = "GPL";
