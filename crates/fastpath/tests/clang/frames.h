/* What is in front of our messages, as src/programs/frames.rs and src/programs/header.rs read it. */

enum { IP_MAX = 14 + 2 * 4, UDP_MAX = IP_MAX + 40 };

struct vlan {
    u16 tci, type;
};

struct ipv6 {
    u8 version, class_flow[3];
    u16 length;
    u8 next_header, hop_limit;
    u64 source[2], destination[2];
};

struct packet {
    void *data, *end;
};

struct address {
    u64 words[2];
    u32 port;
};

struct parsed {
    u64 ip, udp, payload;
    u32 family;
    struct address source, destination;
};

/* Asked for anew each time: the verifier would follow what it learnt of an earlier pointer. */
#define PACKET(ctx)                                                                                                    \
    (struct packet) {                                                                                                  \
        (void *)(long)*(volatile u32 *)&(ctx)->data, (void *)(long)*(volatile u32 *)&(ctx)->data_end                   \
    }

/* Whether what `pointer` points to isn't all there. */
#define SHORT(packet, pointer) ((void *)((pointer) + 1) > (packet).end)

/* The same in a loop, where clang would otherwise calculate with the end, which the verifier doesn't allow. */
#define SHORT_IN_LOOP(packet, pointer)                                                                                 \
    ({                                                                                                                 \
        void *past = (pointer) + 1;                                                                                    \
        asm volatile("" : "+r"(past));                                                                                 \
        past > (packet).end;                                                                                           \
    })

/* Whether it is plain UDP over IP. */
INLINE int parse(struct packet packet, struct parsed *parsed) {
    struct ethernet *ethernet = packet.data;
    if (SHORT(packet, ethernet))
        return 0;
    u16 type = ethernet->type;
    u64 ip = sizeof(*ethernet), udp, carried;
#pragma clang loop unroll(full)
    for (int tag = 0; tag < 2; tag++) {
        if (UNLIKELY(type == be16(0x8100) || type == be16(0x88a8))) {
            struct vlan *vlan = packet.data + ip;
            if (SHORT(packet, vlan))
                return 0;
            type = vlan->type;
            ip += sizeof(*vlan);
        }
    }
    if (type == be16(0x0800)) {
        struct ipv4 *v4 = packet.data + ip;
        if (SHORT(packet, v4) || v4->version_length != 0x45 || v4->protocol != 17 || v4->fragment & be16(0x3fff))
            return 0;
        parsed->source.words[0] = v4->source;
        parsed->source.words[1] = 0;
        parsed->destination.words[0] = v4->destination;
        parsed->destination.words[1] = 0;
        carried = (u64)be16(v4->length) - sizeof(*v4);
        udp = ip + sizeof(*v4);
        parsed->family = 4;
    } else {
        if (type != be16(0x86dd))
            return 0;
        struct ipv6 *v6 = packet.data + ip;
        if (SHORT(packet, v6) || (v6->version & 0xf0) != 0x60 || v6->next_header != 17)
            return 0;
        for (int at = 0; at < 2; at++) {
            parsed->source.words[at] = v6->source[at];
            parsed->destination.words[at] = v6->destination[at];
        }
        carried = be16(v6->length);
        udp = ip + sizeof(*v6);
        parsed->family = 6;
    }
    struct udp *ports = packet.data + udp;
    if (SHORT(packet, ports))
        return 0;
    u64 length = be16(ports->length);
    if (length != carried)
        return 0;
    parsed->ip = ip;
    parsed->udp = udp;
    parsed->payload = length - sizeof(*ports);
    parsed->source.port = ports->source;
    parsed->destination.port = ports->destination;
    return 1;
}

INLINE int is_peer(const struct peer *peer, u32 family, const struct address *address) {
    return address->words[0] == peer->address[0] && address->port == peer->port &&
           address->words[1] == peer->address[1] && family == peer->family;
}

INLINE u64 folded(u64 sum) {
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16);
}
