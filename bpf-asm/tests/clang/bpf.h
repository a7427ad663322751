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
enum { TC_ACT_OK };
enum { RB_NO_WAKEUP = 1, RB_FORCE_WAKEUP = 2, RB_AVAIL_DATA = 0 };
enum { HASH = 1, ARRAY = 2, PROG_ARRAY = 3, PERCPU_ARRAY = 6, LRU_HASH = 9, LPM_TRIE = 11, RINGBUF = 27 };

struct xdp_md {
    u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};

struct skb {
    u32 len, pkt_type, mark, queue_mapping, protocol, vlan_present, vlan_tci, vlan_proto, priority;
    u32 ingress_ifindex, ifindex, tc_index, cb[5], hash, tc_classid, data, data_end, napi_id, family;
    u32 remote_ip4, local_ip4, remote_ip6[4], local_ip6[4], remote_port, local_port, data_meta;
    u64 flow_keys, tstamp;
    u32 wire_len, gso_segs;
};

static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static long (*const map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static u64 (*const ktime_ns)(void) = (void *)5;
static int (*const l4_csum_replace)(struct skb *ctx, u32 offset, u64 from, u64 to, u64 flags) = (void *)11;
static long (*const tail_call)(void *ctx, void *map, u32 index) = (void *)12;
static int (*const clone_redirect)(struct skb *ctx, u32 interface, u64 flags) = (void *)13;
static long (*const adjust_head)(struct xdp_md *ctx, int by) = (void *)44;
static int (*const adjust_tail)(struct xdp_md *ctx, long by) = (void *)65;
static int (*const ringbuf_output)(void *ring, const void *record, u64 size, u64 flags) = (void *)130;
static void *(*const ringbuf_reserve)(void *ring, u64 size, u64 flags) = (void *)131;
static void (*const ringbuf_submit)(void *record, u64 flags) = (void *)132;
static void (*const ringbuf_discard)(void *record, u64 flags) = (void *)133;
static u64 (*const ringbuf_query)(void *ring, u64 flags) = (void *)134;

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
