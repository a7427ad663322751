/* The same as src/programs/prepare_ok.rs. */

enum { TRIES = 4 };

/* Rule R9: a life sign of the backup and its progress, before the ack is dropped. */
INLINE int note_heard(u64 sender, u64 generation, u64 progress) {
    u32 index = sender & (PEERS - 1);
    struct heard *entry = map_lookup(&heard, &index);
    if (!entry)
        return 0;
    u64 word = generation << OP_BITS | progress, old = entry->op;
    if (old >> OP_BITS != generation || word > old)
        entry->op = word;
    entry->at = ktime_ns();
    return 1;
}

/* The quorum is complete: wake user space if it sleeps. */
INLINE int completed(struct shared *shared, u64 op) {
    if (!(ordered(&shared->wake) & WAKE_ON_QUORUM))
        return leave(prepare_ok_completed, XDP_DROP);
    struct record notice = {RECORD_NOTICE, op};
    if (UNLIKELY(ringbuf_output(&ring, &notice, sizeof(notice), RB_FORCE_WAKEUP)))
        return leave(prepare_ok_full, XDP_PASS);
    return leave(prepare_ok_noticed, XDP_DROP);
}

SEC("xdp")
int prepare_ok(struct xdp_md *ctx) {
    struct packet packet = PACKET(ctx);
    struct parsed parsed;
    if (!parse(packet, &parsed))
        return leave(dispatch_foreign, XDP_PASS);
    struct header *header = packet.data + parsed.udp + 8;
    if (SHORT(packet, header))
        return leave(dispatch_foreign, XDP_PASS);
    if (parsed.payload != HEADER_BYTES)
        return leave(prepare_ok_malformed, XDP_DROP);

    struct shared *shared = shared_words();
    if (!shared)
        return XDP_PASS;
    u64 tail = ordered(&shared->tail);
    u64 generation = tail >> OP_BITS, newest = tail & OP_MASK;
    struct block *block = &shared->blocks[generation & 1];
    u64 current_view = block->view, key[2] = {block->key[0], block->key[1]};
    u32 quorum = block->quorum;
    if (UNLIKELY(block->generation != generation || !(block->flags & FLAG_COUNT)))
        return leave(prepare_ok_fenced, XDP_PASS);
    if (UNLIKELY(header->group != block->group))
        return leave(prepare_ok_group, XDP_PASS);
    u64 sender = header->sender;
    if (UNLIKELY(sender >= block->replicas || sender == block->index || sender >= PEERS))
        return leave(prepare_ok_index, XDP_DROP);
    if (UNLIKELY(!is_peer(&block->peers[sender], parsed.family, &parsed.source)))
        return leave(prepare_ok_source, XDP_DROP);

    struct siphash hash = sip_start(key);
    sip_header(&hash, header);
    if (UNLIKELY(header->check != sip_finish(&hash, HEADER_BYTES - 8)))
        return leave(prepare_ok_check, XDP_DROP);
    u64 view = header->view;
    if (UNLIKELY(view > current_view))
        return leave(prepare_ok_newer, XDP_PASS);
    if (UNLIKELY(view < current_view))
        return leave(prepare_ok_older, XDP_DROP);
    u64 op = header->op, progress = header->first;
    if (UNLIKELY(op > progress || progress > newest))
        return leave(prepare_ok_malformed, XDP_DROP);
    if (UNLIKELY(newest - op >= SLOTS))
        return leave(prepare_ok_no_slot, XDP_PASS);
    if (!note_heard(sender, generation, progress))
        return XDP_PASS;

    u32 at = op & (SLOTS - 1);
    u64 *slot = map_lookup(&slots, &at);
    if (!slot)
        return leave(prepare_ok_no_slot, XDP_PASS);
    u64 opened = (generation << 32 | (op & 0xffffffff)) << 16, bit = 1ull << sender;
#pragma clang loop unroll(disable)
    for (int attempt = 0; attempt < TRIES; attempt++) {
        u64 word = *(volatile u64 *)slot;
        if (UNLIKELY((word & ~0xffffull) != opened))
            return leave(prepare_ok_no_slot, XDP_PASS);
        if (word & bit)
            return leave(prepare_ok_surplus, XDP_DROP);
        u64 marked = word | bit;
        if (compare_exchange(slot, word, marked) == word) {
            u32 acks = 0;
            /* clang has no population count for BPF. */
            u64 left = marked & 0xffff;
            left -= left >> 1 & 0x5555;
            left = (left & 0x3333) + (left >> 2 & 0x3333);
            left = (left + (left >> 4)) & 0x0f0f;
            acks = (left + (left >> 8)) & 0x1f;
            if (acks < quorum)
                return leave(prepare_ok_counted, XDP_DROP);
            if (acks > quorum)
                return leave(prepare_ok_surplus, XDP_DROP);
            return completed(shared, op);
        }
    }
    return leave(prepare_ok_race, XDP_PASS);
}
