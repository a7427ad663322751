/* The same as examples/lpm_firewall.rs. */
#include "bpf.h"

struct key {
    u32 prefix_len, data;
};

struct {
    INT(type, LPM_TRIE);
    INT(max_entries, 1024);
    INT(map_flags, 1);
    TYPE(key, struct key);
    TYPE(value, u64);
} blocked SEC(".maps");

SEC("xdp")
int lpm_firewall(struct xdp_md *ctx) {
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    struct ethernet *ethernet = data;
    if ((void *)(ethernet + 1) > end || ethernet->type != be16(0x0800))
        return XDP_PASS;
    struct ipv4 *ip = (void *)(ethernet + 1);
    if ((void *)(ip + 1) > end)
        return XDP_PASS;
    struct key key = {32, ip->source};
    u64 *packets = map_lookup(&blocked, &key);
    if (!packets)
        return XDP_PASS;
    __sync_fetch_and_add(packets, 1);
    return XDP_DROP;
}
