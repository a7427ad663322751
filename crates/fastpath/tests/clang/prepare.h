/* The same as src/programs/prepare.rs; the numbered steps are those of docs/fast-path.md. */

enum { WAKE_BYTES = RING_BYTES / 4 };

/* Memory that was read before this is read again after it. */
#define READ_AGAIN() asm volatile("" ::: "memory")

/* A message of an older view is dropped, but now and then passed. */
INLINE int older_view(struct shared *shared) {
    u64 now = ktime_ns();
    if (now - shared->stale_passed > STALE_INTERVAL_NS) {
        shared->stale_passed = now;
        return leave(prepare_older_passed, XDP_PASS);
    }
    return leave(prepare_older, XDP_DROP);
}

/* The check over the whole message, word by word. */
INLINE int check_of(struct xdp_md *ctx, const struct parsed *parsed, const u64 key[2], u64 *check) {
    struct packet packet = PACKET(ctx);
    struct siphash hash = sip_start(key);
    struct header *header = packet.data + parsed->udp + 8;
    if (SHORT(packet, header))
        return 0;
    sip_header(&hash, header);
    u64 end = header->length + HEADER_BYTES + parsed->udp, at = parsed->udp + HEADER_BYTES;
    for (int word = 0; word < (MESSAGE_BYTES - HEADER_BYTES) / 8 && at < end; word++) {
        u64 *from = packet.data + at + 8;
        if (SHORT_IN_LOOP(packet, from))
            return 0;
        sip_word(&hash, *from);
        at += 8;
    }
    *check = sip_finish(&hash, parsed->payload - 8);
    return 1;
}

/* R8: as many entries as ops, their lengths add up to the body's, and the padding is zeros. */
INLINE int entries_are_right(struct xdp_md *ctx, const struct parsed *parsed, u64 entries) {
    READ_AGAIN();
    struct packet packet = PACKET(ctx);
    struct header *header = packet.data + parsed->udp + 8;
    if (SHORT(packet, header))
        return 0;
    u64 end = header->length + HEADER_BYTES + parsed->udp, at = parsed->udp + HEADER_BYTES;
    for (u64 entry = 0; entry < BATCH_OPS && entry < entries; entry++) {
        if (at > UDP_MAX + MESSAGE_BYTES)
            return 0;
        struct entry *header = packet.data + at + 8;
        if (SHORT_IN_LOOP(packet, header))
            return 0;
        u64 length = header->length;
        if (length > MESSAGE_BYTES)
            return 0;
        u64 last = at + sizeof(struct entry) - 8 + ((length + 7) & ~7ull);
        if (last > UDP_MAX + MESSAGE_BYTES)
            return 0;
        u64 *word = packet.data + last + 8;
        if (SHORT_IN_LOOP(packet, word))
            return 0;
        u64 but_one = ((length - 1) & 7) << 3;
        if (*word >> but_one >> 8)
            return 0;
        at = last + 8;
    }
    return at == end;
}

enum stored { STORED, LOST_RACE, NO_ROOM, TOO_SHORT };

/* Reserves, copies, exchanges the tail, submits. */
INLINE enum stored store(struct xdp_md *ctx, const struct parsed *parsed, struct shared *shared, u64 tail,
                         u64 new_tail, u64 words) {
    struct record *record = ringbuf_reserve(&ring, sizeof(*record) + 8 * words, 0);
    if (UNLIKELY(!record))
        return NO_ROOM;
    record->generation = tail >> OP_BITS;
    record->length = parsed->payload;
    READ_AGAIN();
    struct packet packet = PACKET(ctx);
    struct header *header = packet.data + parsed->udp + 8;
    if (SHORT(packet, header))
        goto too_short;
    u64 end = header->length + HEADER_BYTES + parsed->udp, at = parsed->udp;
    for (u64 word = 0; word < words && at < end; word++) {
        u64 *from = packet.data + at + 8;
        if (SHORT_IN_LOOP(packet, from))
            goto too_short;
        record->words[word] = *from;
        at += 8;
    }
    if (compare_exchange(&shared->tail, tail, new_tail) != tail) {
        ringbuf_discard(record, RB_NO_WAKEUP);
        return LOST_RACE;
    }
    /* Nothing that fails from here on may discard: the op counts as stored. */
    u64 unread = ringbuf_query(&ring, RB_AVAIL_DATA);
    int wake = shared->wake & WAKE_ON_STORE || unread >= WAKE_BYTES;
    ringbuf_submit(record, wake ? RB_FORCE_WAKEUP : RB_NO_WAKEUP);
    return STORED;
too_short:
    ringbuf_discard(record, RB_NO_WAKEUP);
    return TOO_SHORT;
}

/* What the answer needs, once the packet is known to be the primary's. */
struct answer {
    u64 ip, udp;
    u32 family, index;
    u64 key[2], newest;
};

/* Turns the Prepare in the packet into its PrepareOk and sends it back. */
INLINE int answer(struct xdp_md *ctx, const struct answer *with) {
    struct packet packet = PACKET(ctx);
    u64 ip = with->ip, udp = with->udp;
    long by = udp + 8 + HEADER_BYTES - (packet.end - packet.data);
    if (UNLIKELY(adjust_tail(ctx, by)))
        goto failed;
    packet = PACKET(ctx);
    struct ethernet *ethernet = packet.data;
    if (SHORT(packet, ethernet))
        goto failed;
    u32 *high = (void *)ethernet->destination, *from_high = (void *)ethernet->source;
    u16 *low = (void *)ethernet->destination + 4, *from_low = (void *)ethernet->source + 4;
    u32 old_high = *high;
    u16 old_low = *low;
    *high = *from_high;
    *low = *from_low;
    *from_high = old_high;
    *from_low = old_low;

    struct header *header = packet.data + udp + 8;
    if (SHORT(packet, header))
        goto failed;
    header->kind = MESSAGE_PREPARE_OK;
    header->sender = with->index;
    header->flags = 0;
    header->first = with->newest;
    header->commit = 0;
    header->client = 0;
    header->request = 0;
    header->length = 0;
    struct siphash hash = sip_start(with->key);
    sip_header(&hash, header);
    header->check = sip_finish(&hash, HEADER_BYTES - 8);

    struct udp *ports = packet.data + udp;
    if (SHORT(packet, ports))
        goto failed;
    u16 source = ports->source;
    ports->source = ports->destination;
    ports->destination = source;
    ports->length = be16(8 + HEADER_BYTES);
    ports->checksum = 0;

    if (with->family == 4) {
        struct ipv4 *v4 = packet.data + ip;
        if (SHORT(packet, v4))
            goto failed;
        u32 from = v4->source;
        v4->source = v4->destination;
        v4->destination = from;
        v4->length = be16(20 + 8 + HEADER_BYTES);
        v4->ttl = 64;
        v4->checksum = 0;
        const u32 *words = (const u32 *)v4;
        u64 sum = 0;
        for (int at = 0; at < 5; at++)
            sum += words[at];
        v4->checksum = folded(sum) ^ 0xffff;
    } else {
        struct ipv6 *v6 = packet.data + ip;
        if (SHORT(packet, v6))
            goto failed;
        for (int at = 0; at < 2; at++) {
            u64 from = v6->source[at];
            v6->source[at] = v6->destination[at];
            v6->destination[at] = from;
        }
        v6->length = be16(8 + HEADER_BYTES);
        v6->hop_limit = 64;
        const u32 *addresses = (const u32 *)v6->source, *segment = (const u32 *)ports;
        u64 sum = __builtin_bswap32(8 + HEADER_BYTES) + (u64)__builtin_bswap32(17);
        for (int at = 0; at < 8; at++)
            sum += addresses[at];
        for (int at = 0; at < (8 + HEADER_BYTES) / 4; at++)
            sum += segment[at];
        u16 checksum = folded(sum) ^ 0xffff;
        ports->checksum = checksum ? checksum : 0xffff;
    }
    return leave(prepare_acked, XDP_TX);
failed:
    return leave(prepare_unanswered, XDP_DROP);
}

SEC("xdp")
int prepare(struct xdp_md *ctx) {
    struct shared *shared = shared_words();
    if (!shared)
        return XDP_PASS;
    struct answer with;
    /* Step 1, again at most once after a lost race. */
#pragma clang loop unroll(disable)
    for (int attempt = 0; attempt < 2; attempt++) {
        struct packet packet = PACKET(ctx);
        struct parsed parsed;
        if (!parse(packet, &parsed))
            return leave(dispatch_foreign, XDP_PASS);
        struct header *header = packet.data + parsed.udp + 8;
        if (SHORT(packet, header))
            return leave(dispatch_foreign, XDP_PASS);

        u64 tail = ordered(&shared->tail);
        u64 generation = tail >> OP_BITS, last_op = tail & OP_MASK;
        struct block *block = &shared->blocks[generation & 1];
        u64 current_view = block->view, flags = block->flags;
        u32 primary = block->primary;
        with = (struct answer){parsed.ip, parsed.udp, parsed.family, block->index, {block->key[0], block->key[1]}};
        if (UNLIKELY(block->generation != generation || !(flags & FLAG_STORE)))
            return leave(prepare_fenced, XDP_PASS);
        if (UNLIKELY(header->group != block->group))
            return leave(prepare_group, XDP_PASS);
        u64 sender = header->sender;
        if (sender >= PEERS)
            return leave(prepare_index, XDP_DROP);
        if (UNLIKELY(!is_peer(&block->peers[sender], parsed.family, &parsed.source)))
            return leave(prepare_source, XDP_DROP);

        /* Step 2. */
        if (UNLIKELY(header->view > current_view))
            return leave(prepare_newer, XDP_PASS);
        u64 first = header->first, last = header->op;
        if (UNLIKELY(!first || first > last || last > OP_MASK || last - first >= BATCH_OPS || header->commit > OP_MASK))
            return leave(prepare_malformed, XDP_DROP);
        if (UNLIKELY(parsed.payload > MESSAGE_BYTES))
            return leave(prepare_large, XDP_PASS);
        if (UNLIKELY(parsed.payload & 7))
            return leave(prepare_malformed, XDP_DROP);
        u64 claimed = header->check, check;
        if (!check_of(ctx, &parsed, with.key, &check))
            return leave(prepare_malformed, XDP_DROP);
        if (UNLIKELY(claimed != check))
            return leave(prepare_check, XDP_DROP);
        if (!entries_are_right(ctx, &parsed, last - first + 1))
            return leave(prepare_malformed, XDP_DROP);
        READ_AGAIN();
        packet = PACKET(ctx);
        header = packet.data + parsed.udp + 8;
        if (SHORT(packet, header))
            return leave(prepare_malformed, XDP_DROP);
        if (UNLIKELY(header->view < current_view))
            return older_view(shared);
        if (UNLIKELY(header->sender != primary))
            return leave(prepare_index, XDP_DROP);

        /* Step 3. */
        if (last <= last_op) {
            add(prepare_duplicate, 1);
            if (UNLIKELY(ordered(&shared->tail) >> OP_BITS != generation || !(flags & FLAG_ANSWER)))
                return leave(prepare_fenced, XDP_PASS);
            with.newest = last_op;
            goto done;
        }
        /* Step 4. */
        if (UNLIKELY(first > last_op + 1))
            return leave(prepare_gap, XDP_PASS);
        /* Steps 5 and 6, by the size of the message. */
        u64 new_tail = generation << OP_BITS | last;
        enum stored stored;
        if (parsed.payload <= SMALL_MESSAGE_BYTES)
            stored = store(ctx, &parsed, shared, tail, new_tail, SMALL_MESSAGE_BYTES / 8);
        else
            stored = store(ctx, &parsed, shared, tail, new_tail, MESSAGE_BYTES / 8);
        if (UNLIKELY(stored == NO_ROOM))
            return leave(prepare_full, XDP_PASS);
        if (UNLIKELY(stored == TOO_SHORT))
            return leave(prepare_malformed, XDP_DROP);
        if (stored == STORED) {
            add(prepare_stored, 1);
            if (UNLIKELY(!(flags & FLAG_ANSWER)))
                return XDP_PASS;
            with.newest = last;
            goto done;
        }
    }
    return leave(prepare_race, XDP_PASS);
done:
    return answer(ctx, &with);
}
