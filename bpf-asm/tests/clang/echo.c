/* The same as examples/echo.rs. */
#include "bpf.h"

struct addresses {
    u32 a, b, c;
} __attribute__((packed, aligned(4)));

SEC("xdp")
int echo(struct xdp_md *ctx) {
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    struct ethernet *ethernet = data;
    if ((void *)(ethernet + 1) > end || ethernet->type != be16(0x0800))
        return XDP_PASS;
    struct ipv4 *ip = (void *)(ethernet + 1);
    if ((void *)(ip + 1) > end || ip->version_length != 0x45 || ip->protocol != 17)
        return XDP_PASS;
    struct udp *udp = (void *)(ip + 1);
    if ((void *)(udp + 1) > end || udp->destination != be16(7))
        return XDP_PASS;
    udp->destination = udp->source;
    udp->source = be16(7);
    u32 source = ip->source;
    ip->source = ip->destination;
    ip->destination = source;
    struct addresses *all = data;
    u32 a = all->a, b = all->b, c = all->c;
    all->a = b >> 16 | c << 16;
    all->b = c >> 16 | a << 16;
    all->c = a >> 16 | b << 16;
    return XDP_TX;
}
