/* The same as src/programs/dispatch.rs. */

SEC("xdp")
int dispatch(struct xdp_md *ctx) {
    struct packet packet = PACKET(ctx);
    struct parsed parsed;
    if (!parse(packet, &parsed))
        return leave(dispatch_foreign, XDP_PASS);
    struct header *header = packet.data + parsed.udp + 8;
    if (SHORT(packet, header) || header->magic != MAGIC || header->version != VERSION || header->epoch)
        return leave(dispatch_foreign, XDP_PASS);
    if (parsed.payload != (u64)header->length + HEADER_BYTES)
        return leave(dispatch_foreign, XDP_PASS);

    struct shared *shared = shared_words();
    if (!shared)
        return XDP_PASS;
    u64 generation = ordered(&shared->tail) >> OP_BITS;
    struct block *block = &shared->blocks[generation & 1];
    if (!is_peer(&block->peers[block->index & (PEERS - 1)], parsed.family, &parsed.destination))
        return leave(dispatch_foreign, XDP_PASS);

    u8 kind = header->kind;
    if (kind == MESSAGE_PREPARE) {
        add(dispatch_prepare, 1);
        tail_call(ctx, &programs, PROGRAM_PREPARE);
        return XDP_PASS;
    }
    if (kind == MESSAGE_PREPARE_OK) {
        add(dispatch_prepare_ok, 1);
        tail_call(ctx, &programs, PROGRAM_PREPARE_OK);
        return XDP_PASS;
    }
    return leave(dispatch_other, XDP_PASS);
}
