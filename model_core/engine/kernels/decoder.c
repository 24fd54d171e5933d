/* The decoder of a small float32 network as one call: no library, no allocation, no choice of kernel by the number of rows.

   Every sum runs over its inputs in one order, whatever number of tokens is computed together: a block gives each token the bits that it
   has alone. Products are computed in tiles of ROWS tokens by WIDE outputs, over weights that lie in panels of WIDE outputs.

   n tokens, D width, H query heads, G key heads, E width of a head, F feed forward, P places of a row of the cache, X rows of the head.
   Python's side: model_core/engine/native_forward.py; both structs are repeated there field by field. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#define ROWS 12
#elif defined(__AVX__)
#define LANES 8
#define ROWS 6
#elif defined(__aarch64__)
#define LANES 4
#define ROWS 12
#else
#define LANES 4
#define ROWS 4
#endif
#define WIDE (2 * LANES)
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

struct layer { /* weights in panels; bias: (H + 2 G) E numbers or null */
    const float *qkv, *bias, *out, *up, *down;
};

struct network { /* slots: or null; turns: cosines then sines [P, E], or null without rotary positions; head: in panels */
    const struct layer *layers;
    const float *embedding, *slots, *turns, *head;
    int64_t count, width, heads, groups, depth, feed, turn_places, head_rows;
    float least, scale; /* D eps; 1 / sqrt(E) */
};

struct block {
    const int64_t *ids, *places, *positions, *rows; /* of a token: its id, or less than 0 where its embedding is the next of `given`; its
                                                       row of `slots` and `turns`; its place, negative for padding, and row in the cache */
    const int64_t *ranges;                          /* (n, 2) head rows to choose from, or null where nothing is to be chosen */
    const float *given;
    float *memory, *scratch, *hidden, *logits, *margins; /* hidden states and choices: of the last `wanted` tokens */
    int64_t *chosen, n, wanted, capacity, cache_places;
    int64_t query, query_end, hole, hole_end; /* tokens from `query` on see each other, up to query_end, and no place of the hole */
};

int32_t actwright_lanes(void) { return LANES; }

INLINE vec load(const float *at) { return *(const vec *)at; }
INLINE void store(float *at, vec value) { *(vec *)at = value; }

INLINE vec chosen(ivec where, vec yes, vec no) { return (vec)((where & (ivec)yes) | (~where & (ivec)no)); }
INLINE vec larger(vec x, vec y) { return chosen((ivec)(x > y), x, y); }

INLINE vec exponential(vec x) /* within 2 ulp; below e^-87 it stays there; NaN stays NaN */
{
    x = chosen((ivec)(x < -87.0f), (vec){0} - 87.0f, x);
    x = chosen((ivec)(x > 88.0f), (vec){0} + 88.0f, x);
    vec shifted = x * 1.44269504f + 12582912.0f, whole = shifted - 12582912.0f;
    vec rest = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    vec sum = rest * 1.9875691500e-4f + 1.3981999507e-3f;
    sum = sum * rest + 8.3334519073e-3f;
    sum = sum * rest + 4.1665795894e-2f;
    sum = sum * rest + 1.6666665459e-1f;
    sum = sum * rest + 5.0000001201e-1f;
    sum = sum * rest * rest + rest + 1.0f;
    return sum * (vec)(((ivec)shifted - 0x4B400000 + 127) << 23);
}

INLINE float total(vec sums)
{
    float found = 0.0f;
    for (int lane = 0; lane < LANES; lane++) found += sums[lane];
    return found;
}

/* ---- products */

enum { STORE, ADD, GATED }; /* y = , y +=, y = value * silu(gate) of panels that hold LANES values and their gates */

struct product {
    const float *a, *b, *bias;
    float *y;
    int64_t lda, ldb, ldy, depth;
};

INLINE void tile(const int rows, const int mode, const struct product *p)
{
    vec sums[ROWS][2];
    UNROLL
    for (int r = 0; r < rows; r++) sums[r][0] = sums[r][1] = (vec){0};
    const float *a = p->a, *b = p->b;
    const int64_t lda = p->lda, ldb = p->ldb, depth = p->depth;
    for (int64_t k = 0; k < depth; k++, b += ldb) {
        const vec first = load(b), second = load(b + LANES);
        UNROLL
        for (int r = 0; r < rows; r++) {
            sums[r][0] += a[r * lda + k] * first;
            sums[r][1] += a[r * lda + k] * second;
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        float *y = p->y + r * p->ldy;
        if (mode == GATED) {
            store(y, sums[r][0] * sums[r][1] / (1.0f + exponential(-sums[r][1])));
            continue;
        }
        for (int half = 0; half < 2; half++) {
            vec sum = sums[r][half];
            if (p->bias) sum += load(p->bias + half * LANES);
            if (mode == ADD) sum += load(y + half * LANES);
            store(y + half * LANES, sum);
        }
    }
}

#define CASE(R) case R: tile(R, mode, p); break;
INLINE void some_rows(const int mode, int64_t rows, const struct product *p)
{
    switch (rows) {
        CASE(1) CASE(2) CASE(3) CASE(4)
#if ROWS > 4
        CASE(5) CASE(6)
#endif
#if ROWS > 6
        CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#endif
    }
}

INLINE void panels(const int mode, struct product p, int64_t rows, int64_t count)
{
    const struct product first = p;
    for (int64_t panel = 0; panel < count; panel++) {
        const int64_t out = panel * (mode == GATED ? LANES : WIDE);
        p.b = first.b + panel * first.depth * WIDE;
        p.bias = first.bias ? first.bias + out : NULL;
        for (int64_t row = 0; row < rows; row += ROWS) {
            p.a = first.a + row * first.lda;
            p.y = first.y + row * first.ldy + out;
            some_rows(mode, rows - row < ROWS ? rows - row : ROWS, &p);
        }
    }
}

static void stored(struct product p, int64_t rows, int64_t outputs) { panels(STORE, p, rows, outputs / WIDE); }
static void added(struct product p, int64_t rows, int64_t outputs) { panels(ADD, p, rows, outputs / WIDE); }
static void gated(struct product p, int64_t rows, int64_t outputs) { panels(GATED, p, rows, outputs / LANES); }
static void one_panel(const struct product *p, int64_t rows) { some_rows(STORE, rows, p); }

/* ---- the parts of a layer */

static void normed(const float *x, float *y, int64_t n, int64_t width, float least) /* x / sqrt(|x|^2 + D eps) */
{
    for (int64_t token = 0; token < n; token++, x += width, y += width) {
        vec squares = {0};
        for (int64_t at = 0; at < width; at += LANES) squares += load(x + at) * load(x + at);
        const float factor = 1.0f / sqrtf(total(squares) + least);
        for (int64_t at = 0; at < width; at += LANES) store(y + at, load(x + at) * factor);
    }
}

static void turned(float *head, const float *cosines, const float *sines, int64_t depth)
{
    const int64_t half = depth / 2;
    for (int64_t at = 0; at < half; at++) {
        const float first = head[at], second = head[at + half];
        head[at] = first * cosines[at] - second * sines[at];
        head[at + half] = second * cosines[at + half] + first * sines[at + half];
    }
}

/* Scores of `count` places -> weights that are not divided by their sum, which is returned; zero from `end` on and in the hole. */
static float softmax(float *scores, int64_t count, int64_t end, int64_t hole, int64_t hole_end, float scale)
{
    for (int64_t at = hole; at < hole_end; at++) scores[at] = -INFINITY;
    for (int64_t at = end; at < count; at++) scores[at] = -INFINITY;
    vec most = load(scores);
    for (int64_t at = LANES; at < count; at += LANES) most = larger(load(scores + at), most);
    float top = most[0];
    for (int lane = 1; lane < LANES; lane++) top = most[lane] > top ? most[lane] : top;
    for (int64_t at = 0; at < count; at += LANES) store(scores + at, exponential((load(scores + at) - top) * scale));
    for (int64_t at = hole; at < hole_end; at++) scores[at] = 0.0f;
    for (int64_t at = end; at < count; at++) scores[at] = 0.0f;
    vec sums = {0};
    for (int64_t at = 0; at < count; at += LANES) sums += load(scores + at);
    return total(sums);
}

/* keys [E, P] and values [P, E] of one head; q, y: of `rows` tokens, whose positions ascend. */
static void attended(
    const struct network *net, const struct block *b, const float *keys, const struct product *q, int64_t token, int64_t rows)
{
    const float *values = keys + b->capacity * net->groups * net->depth * b->cache_places;
    const int64_t *at = b->positions + token;
    const int64_t seen = token + rows > b->query ? b->query_end : at[rows - 1] + 1, count = (seen + WIDE - 1) / WIDE * WIDE;
    float *scores = b->scratch, sums[ROWS];
    struct product part = {q->a, keys, NULL, scores, q->lda, b->cache_places, count, net->depth};
    for (int64_t place = 0; place < count; place += WIDE, part.b += WIDE, part.y += WIDE) one_panel(&part, rows);
    for (int64_t r = 0; r < rows; r++) {
        if (token + r >= b->query) sums[r] = softmax(scores + r * count, count, b->query_end, b->hole, b->hole_end, net->scale);
        else sums[r] = softmax(scores + r * count, count, at[r] + 1, 0, 0, net->scale);
    }
    part = (struct product){scores, values, NULL, q->y, count, net->depth, q->ldy, seen};
    for (int64_t column = 0; column < net->depth; column += WIDE, part.b += WIDE, part.y += WIDE) one_panel(&part, rows);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t column = 0; column < net->depth; column += LANES)
            store(q->y + r * q->ldy + column, load(q->y + r * q->ldy + column) / sums[r]);
}

static float *cached(const struct network *net, const struct block *b, int64_t number, int64_t token, int64_t group)
{
    const int64_t size = net->depth * b->cache_places;
    return b->memory + ((2 * number * b->capacity + b->rows[token]) * net->groups + group) * size;
}

/* Turn queries and keys, and store keys and values. */
static void kept(const struct network *net, const struct block *b, int64_t number, float *qkv)
{
    const int64_t depth = net->depth, heads = net->heads + net->groups, wide = (heads + net->groups) * depth;
    const int64_t values = b->capacity * net->groups * depth * b->cache_places;
    for (int64_t token = 0; token < b->n; token++, qkv += wide) {
        const int64_t at = b->positions[token];
        if (at < 0) continue;
        if (net->turns) {
            const float *cosines = net->turns + b->places[token] * depth;
            for (int64_t head = 0; head < heads; head++) turned(qkv + head * depth, cosines, cosines + net->turn_places * depth, depth);
        }
        for (int64_t group = 0; group < net->groups; group++) {
            float *keys = cached(net, b, number, token, group);
            const float *key = qkv + (net->heads + group) * depth;
            for (int64_t e = 0; e < depth; e++) keys[e * b->cache_places + at] = key[e];
            memcpy(keys + values + at * depth, key + net->groups * depth, depth * sizeof(float));
        }
    }
}

static void attention(const struct network *net, const struct block *b, int64_t number, int64_t from, const float *qkv, float *y)
{
    const int64_t depth = net->depth, share = net->heads / net->groups;
    const int64_t wide = (net->heads + 2 * net->groups) * depth, asked = net->heads * depth;
    for (int64_t token = from, rows; token < b->n; token += rows) {
        for (rows = 1; rows < ROWS && token + rows < b->n && b->rows[token + rows] == b->rows[token];) rows++;
        while (b->positions[token + rows - 1] < 0 && rows > 1) rows--; /* padding stands last */
        if (b->positions[token] < 0) continue;
        for (int64_t head = 0; head < net->heads; head++) {
            const struct product q = {qkv + token * wide + head * depth, NULL, NULL, y + token * asked + head * depth, wide, 0, asked, 0};
            attended(net, b, cached(net, b, number, token, head / share), &q, token, rows);
        }
    }
}

static void embedded(const struct network *net, const struct block *b, float *x)
{
    const float *given = b->given;
    for (int64_t token = 0; token < b->n; token++, x += net->width) {
        const float *from = given, *slot = net->slots ? net->slots + b->places[token] * net->width : NULL;
        if (b->ids && b->ids[token] >= 0) from = net->embedding + b->ids[token] * net->width;
        else given += net->width;
        for (int64_t at = 0; at < net->width; at += LANES) {
            vec value = load(from + at);
            if (slot) value += load(slot + at);
            store(x + at, value);
        }
    }
}

/* ---- what is chosen */

/* Of each token: the first of the best head rows in its range [first, stop), its logit (a NaN is the best), how far the next is behind. */
static void choose(const struct network *net, const struct block *b)
{
    const int64_t n = b->wanted, width = (net->head_rows + WIDE - 1) / WIDE * WIDE;
    for (int64_t token = 0, rows; token < n; token += rows) {
        const int64_t *range = b->ranges + 2 * token, first = range[0], stop = range[1], from = first / WIDE * WIDE;
        for (rows = 1; rows < ROWS && token + rows < n && !memcmp(range, range + 2 * rows, 2 * sizeof(int64_t));) rows++;
        const struct product p = {
            b->hidden + token * net->width, net->head + from * net->width, NULL, b->scratch, net->width, WIDE, width, net->width};
        stored(p, rows, (stop - from + WIDE - 1) / WIDE * WIDE);
        for (int64_t r = 0; r < rows; r++) {
            const float *scores = b->scratch + r * width - from;
            int64_t best = first;
            float second = -INFINITY;
            for (int64_t at = first + 1; at < stop && scores[best] == scores[best]; at++) {
                if (scores[at] > scores[best] || scores[at] != scores[at]) second = scores[best], best = at;
                else if (scores[at] > second) second = scores[at];
            }
            b->chosen[token + r] = best, b->logits[token + r] = scores[best], b->margins[token + r] = scores[best] - second;
        }
    }
}

/* One block of tokens through all layers; hidden states are those behind the last norm, without its weight.
   scratch: ROWS times the larger of P and X, and n (2 D + (2 H + 2 G) E + F) numbers. */
void actwright_block(const struct network *net, const struct block *b)
{
    const int64_t n = b->n, width = net->width, asked = net->heads * net->depth, shared = 2 * net->groups * net->depth;
    const int64_t first = b->cache_places > net->head_rows + WIDE ? b->cache_places : net->head_rows + WIDE;
    float *x = b->scratch + ROWS * first, *h = x + n * width, *qkv = h + n * width, *seen = qkv + n * (asked + shared), *wide = seen + n * asked;
    embedded(net, b, x);
    for (int64_t number = 0; number < net->count; number++) {
        const struct layer *layer = net->layers + number;
        const int64_t from = number + 1 < net->count ? 0 : n - b->wanted, rows = n - from; /* the last layer: what is wanted alone */
        const float *bias = layer->bias ? layer->bias + asked : NULL;
        normed(x, h, n, width, net->least);
        struct product p = {h, layer->qkv + asked * width, bias, qkv + asked, width, WIDE, asked + shared, width};
        stored(p, from, shared);
        p = (struct product){h + from * width, layer->qkv, layer->bias, qkv + from * (asked + shared), width, WIDE, asked + shared, width};
        stored(p, rows, asked + shared);
        kept(net, b, number, qkv);
        attention(net, b, number, from, qkv, seen);
        p = (struct product){seen + from * asked, layer->out, NULL, x + from * width, asked, WIDE, width, asked};
        added(p, rows, width);
        normed(x + from * width, h, rows, width, net->least);
        p = (struct product){h, layer->up, NULL, wide, width, WIDE, net->feed, width};
        gated(p, rows, net->feed);
        p = (struct product){wide, layer->down, NULL, x + from * width, net->feed, WIDE, width, net->feed};
        added(p, rows, width);
    }
    normed(x + (n - b->wanted) * width, b->hidden, b->wanted, width, net->least);
    if (b->ranges) choose(net, b);
}

/* Logits (n, X rounded up to panels) of hidden states (n, D). */
void actwright_logits(const struct network *net, const float *hidden, float *logits, int64_t n)
{
    const int64_t width = (net->head_rows + WIDE - 1) / WIDE * WIDE;
    const struct product p = {hidden, net->head, NULL, logits, net->width, WIDE, width, net->width};
    stored(p, n, width);
}
