/* The same as examples/syn_flood.rs. */
#include "bpf.h"

struct event {
    u32 source, unused;
    u64 attempts;
};

struct {
    INT(type, LRU_HASH);
    INT(max_entries, 65536);
    TYPE(key, u32);
    TYPE(value, u64);
} attempts SEC(".maps");

struct {
    INT(type, RINGBUF);
    INT(max_entries, 65536);
} events SEC(".maps");

const volatile u64 limit = 100;

SEC("xdp")
int syn_flood(struct xdp_md *ctx) {
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    struct ethernet *ethernet = data;
    if ((void *)(ethernet + 1) > end || ethernet->type != be16(0x0800))
        return XDP_PASS;
    struct ipv4 *ip = (void *)(ethernet + 1);
    if ((void *)(ip + 1) > end || ip->version_length != 0x45 || ip->protocol != 6)
        return XDP_PASS;
    struct tcp *tcp = (void *)(ip + 1);
    if ((void *)(tcp + 1) > end || (tcp->flags & 0x12) != 0x02)
        return XDP_PASS;
    u32 source = ip->source;
    u64 *count = map_lookup(&attempts, &source);
    if (!count) {
        u64 one = 1;
        map_update(&attempts, &source, &one, 0);
        return XDP_PASS;
    }
    u64 before = __sync_fetch_and_add(count, 1), most = limit;
    if (before < most)
        return XDP_PASS;
    if (before == most) {
        struct event *event = ringbuf_reserve(&events, sizeof(*event), 0);
        if (!event)
            return XDP_DROP;
        event->source = source;
        event->unused = 0;
        event->attempts = before;
        ringbuf_submit(event, 0);
    }
    return XDP_DROP;
}
