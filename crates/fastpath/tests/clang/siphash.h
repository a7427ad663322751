/* SipHash-2-4 over 64-bit words, as src/programs/siphash.rs computes it. */

struct siphash {
    u64 v0, v1, v2, v3;
};

INLINE u64 rotated(u64 word, int by) {
    return word << by | word >> (64 - by);
}

INLINE void sip_round(struct siphash *hash) {
    hash->v0 += hash->v1;
    hash->v1 = rotated(hash->v1, 13) ^ hash->v0;
    hash->v0 = rotated(hash->v0, 32);
    hash->v2 += hash->v3;
    hash->v3 = rotated(hash->v3, 16) ^ hash->v2;
    hash->v0 += hash->v3;
    hash->v3 = rotated(hash->v3, 21) ^ hash->v0;
    hash->v2 += hash->v1;
    hash->v1 = rotated(hash->v1, 17) ^ hash->v2;
    hash->v2 = rotated(hash->v2, 32);
}

INLINE struct siphash sip_start(const u64 key[2]) {
    return (struct siphash){
        key[0] ^ 0x736f6d6570736575,
        key[1] ^ 0x646f72616e646f6d,
        key[0] ^ 0x6c7967656e657261,
        key[1] ^ 0x7465646279746573,
    };
}

INLINE void sip_word(struct siphash *hash, u64 word) {
    hash->v3 ^= word;
    sip_round(hash);
    sip_round(hash);
    hash->v0 ^= word;
}

INLINE u64 sip_finish(struct siphash *hash, u64 bytes) {
    sip_word(hash, bytes << 56);
    hash->v2 ^= 0xff;
    for (int round = 0; round < 4; round++)
        sip_round(hash);
    return hash->v0 ^ hash->v1 ^ hash->v2 ^ hash->v3;
}

/* Every word of a header but the check itself. */
INLINE void sip_header(struct siphash *hash, const struct header *header) {
    const u64 *words = (const u64 *)header;
#pragma clang loop unroll(full)
    for (int at = 0; at < HEADER_BYTES / 8; at++)
        if (at != 1)
            sip_word(hash, words[at]);
}
