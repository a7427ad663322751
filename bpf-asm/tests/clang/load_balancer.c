/* The same as examples/load_balancer.rs. */
#include "bpf.h"

#define SERVERS_EACH 16

struct service {
    u32 address;
    u16 port, protocol;
};

struct server {
    u32 address, own_address;
    u8 mac[6];
    u16 unused;
};

struct {
    INT(type, HASH);
    INT(max_entries, 64);
    TYPE(key, struct service);
    TYPE(value, u32);
} services SEC(".maps");

struct {
    INT(type, ARRAY);
    INT(max_entries, 64 * SERVERS_EACH);
    TYPE(key, u32);
    TYPE(value, struct server);
} servers SEC(".maps");

static __attribute__((always_inline)) u32 mixed(u32 flow) {
    flow = (flow ^ flow >> 16) * 0x85ebca6b;
    flow = (flow ^ flow >> 13) * 0xc2b2ae35;
    return flow ^ flow >> 16;
}

static __attribute__((always_inline)) u16 folded(u64 sum) {
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16);
}

SEC("xdp")
int load_balancer(struct xdp_md *ctx) {
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    struct ethernet *ethernet = data;
    if ((void *)(ethernet + 1) > end || ethernet->type != be16(0x0800))
        return XDP_PASS;
    struct ipv4 *ip = (void *)(ethernet + 1);
    if ((void *)(ip + 1) > end || ip->version_length != 0x45)
        return XDP_PASS;
    if (ip->protocol != 6 && ip->protocol != 17)
        return XDP_PASS;
    struct udp *ports = (void *)(ip + 1);
    if ((void *)(ports + 1) > end)
        return XDP_PASS;
    struct service key = {ip->destination, ports->destination, ip->protocol};
    u16 length = be16(ip->length);
    u32 flow = ip->source ^ (u32)ports->source << 16;
    u32 *service = map_lookup(&services, &key);
    if (!service)
        return XDP_PASS;
    u32 index = *service * SERVERS_EACH + (mixed(flow) & (SERVERS_EACH - 1));
    struct server *server = map_lookup(&servers, &index);
    if (!server)
        return XDP_DROP;

    if (adjust_head(ctx, -20))
        return XDP_DROP;
    data = (void *)(long)ctx->data, end = (void *)(long)ctx->data_end;
    ethernet = data;
    struct ethernet *before = data + 20;
    struct ipv4 *outer = (void *)(ethernet + 1);
    if ((void *)(before + 1) > end || (void *)(outer + 1) > end)
        return XDP_DROP;
    __builtin_memcpy(ethernet->source, before->destination, 6);
    __builtin_memcpy(ethernet->destination, server->mac, 6);
    ethernet->type = be16(0x0800);
    length = be16((u16)(length + 20));
    outer->version_length = 0x45;
    outer->tos = 0;
    outer->length = length;
    outer->identification = 0;
    outer->fragment = 0;
    outer->ttl = 64;
    outer->protocol = 4;
    outer->source = server->own_address;
    outer->destination = server->address;
    u64 sum = (u64)length + server->own_address + server->address + 0x0045 + 0x0440;
    outer->checksum = ~folded(sum);
    return XDP_TX;
}
