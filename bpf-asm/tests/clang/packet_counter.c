/* The same as examples/packet_counter.rs. */
#include "bpf.h"

struct count {
    u64 packets, bytes;
};

struct {
    INT(type, PERCPU_ARRAY);
    INT(max_entries, 256);
    TYPE(key, u32);
    TYPE(value, struct count);
} counts SEC(".maps");

SEC("xdp")
int packet_counter(struct xdp_md *ctx) {
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    struct ethernet *ethernet = data;
    if ((void *)(ethernet + 1) > end)
        return XDP_PASS;
    u32 protocol = 0;
    if (ethernet->type == be16(0x0800)) {
        struct ipv4 *ip = (void *)(ethernet + 1);
        if ((void *)(ip + 1) > end)
            return XDP_PASS;
        protocol = ip->protocol;
    }
    struct count *count = map_lookup(&counts, &protocol);
    if (!count)
        return XDP_PASS;
    count->packets += 1;
    count->bytes += end - data;
    return XDP_PASS;
}
