/* The same as src/programs/broadcast.rs. */

enum { PSEUDO = 1 << 4, MANGLED_0 = 1 << 5 };

struct destination {
    u64 mac;
    struct address address;
};

/* Addresses the packet: MAC, IP, port, and the sums that cover them. 0 when it is too short. */
INLINE int rewrite(struct skb *ctx, u64 ip, u64 udp, u32 family, struct destination to) {
    struct packet packet = PACKET(ctx);
    struct ethernet *ethernet = packet.data;
    if (SHORT(packet, ethernet))
        return 0;
    *(u32 *)ethernet->destination = to.mac;
    *(u16 *)(ethernet->destination + 4) = to.mac >> 32;
    struct udp *ports = packet.data + udp;
    if (SHORT(packet, ports))
        return 0;
    u16 old_port = ports->destination, new_port = to.address.port;
    ports->destination = new_port;
    u64 from = 0, with = 0;
    if (family == 4) {
        struct ipv4 *v4 = packet.data + ip;
        if (SHORT(packet, v4))
            return 0;
        from = v4->destination;
        with = (u32)to.address.words[0];
        v4->destination = with;
        /* RFC 1624: HC' = ~(~HC + ~m + m'). */
        u64 sum = (u16)~v4->checksum + (from ^ 0xffffffff) + with;
        v4->checksum = folded(sum) ^ 0xffff;
    } else {
        struct ipv6 *v6 = packet.data + ip;
        if (SHORT(packet, v6))
            return 0;
        for (int at = 0; at < 2; at++) {
            u64 was = v6->destination[at], is = to.address.words[at];
            v6->destination[at] = is;
            from += (was & 0xffffffff) + (was >> 32);
            with += (is & 0xffffffff) + (is >> 32);
        }
        from = folded(from);
        with = folded(with);
    }
    u32 checksum = udp + __builtin_offsetof(struct udp, checksum);
    if (UNLIKELY(l4_csum_replace(ctx, checksum, from, with, PSEUDO | MANGLED_0 | 4)))
        add(broadcast_unfit, 1);
    if (UNLIKELY(l4_csum_replace(ctx, checksum, old_port, new_port, MANGLED_0 | 2)))
        add(broadcast_unfit, 1);
    return 1;
}

SEC("classifier")
int broadcast(struct skb *ctx) {
    /* Copies come through here again. */
    if (ctx->mark == CLONE_MARK)
        return TC_ACT_OK;
    struct packet packet = PACKET(ctx);
    struct parsed parsed;
    if (!parse(packet, &parsed))
        return TC_ACT_OK;
    struct header *header = packet.data + parsed.udp + 8;
    if (SHORT(packet, header) || header->magic != MAGIC || header->version != VERSION || header->epoch || !(header->flags & FLAG_BROADCAST))
        return TC_ACT_OK;
    struct shared *shared = shared_words();
    if (!shared)
        return TC_ACT_OK;
    struct block *block = &shared->blocks[ordered(&shared->tail) >> OP_BITS & 1];
    u64 index = block->index, replicas = block->replicas;
    if (!is_peer(&block->peers[index & (PEERS - 1)], parsed.family, &parsed.source))
        return TC_ACT_OK;
    if (UNLIKELY(ctx->gso_segs > 1))
        return leave(broadcast_unfit, TC_ACT_OK);
    struct ethernet *ethernet = packet.data;
    struct destination original = {
        *(u32 *)ethernet->destination | (u64) * (u16 *)(ethernet->destination + 4) << 32,
        parsed.destination,
    };
    add(broadcast_handled, 1);
    u32 mark = ctx->mark;
    ctx->mark = CLONE_MARK;
#pragma clang loop unroll(disable)
    for (u32 at = 0; at < PEERS; at++) {
        if (at >= replicas)
            break;
        if (at == index)
            continue;
        u32 which = at;
        struct target *target = map_lookup(&targets, &which);
        if (!target)
            break;
        const struct peer *peer = &target->peer;
        /* The original's. */
        if (original.address.words[0] == peer->address[0] && original.address.words[1] == peer->address[1] &&
            original.address.port == peer->port)
            continue;
        if (UNLIKELY(!(target->mac & TARGET_RESOLVED))) {
            add(broadcast_unresolved, 1);
            continue;
        }
        if (UNLIKELY(parsed.family != peer->family))
            continue;
        struct destination to = {target->mac, {{peer->address[0], peer->address[1]}, peer->port}};
        if (!rewrite(ctx, parsed.ip, parsed.udp, parsed.family, to))
            break;
        if (clone_redirect(ctx, ctx->ifindex, 0))
            add(broadcast_clone_failed, 1);
        else
            add(broadcast_cloned, 1);
    }
    /* The original goes where it was sent to. */
    ctx->mark = mark;
    rewrite(ctx, parsed.ip, parsed.udp, parsed.family, original);
    return TC_ACT_OK;
}
