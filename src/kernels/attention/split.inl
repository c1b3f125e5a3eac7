// Attention of a few rows over a split, compiled once for each instruction set, which gives Floats, a vector of kLanes
// (8 or 16), and its operations; kSums: how many vectors a product keeps in registers; kDotRows, kWeighRows, kColumns.
// Functions of headers are not used: an inline copy made here may be the one that the linker keeps for all, with
// instructions that not every CPU has.
//
// An arithmetic, such as Widened, is how the products of a cache type are computed. A row goes through the same
// operations in the same order whatever the panel of rows that it is in.

constexpr int kTile = 16;
constexpr int kBlock = 64;
constexpr int kBlockTiles = kBlock / kTile;
constexpr int kParts = kTile / kLanes;  // vectors of a tile's positions
constexpr float kLargestFloat = 3.40282347e+38f;

/// The scratch of an item, as attention_scratch_bytes() counts it.
struct Scratch {
  std::byte* queries;  // panels: 64 bytes a row that begin with [rows] starts, then [padded_width / c, rows, c]
  float* scores;       // [rows, 64]
  std::byte* weights;  // [rows, 256 bytes]
  float* sums;         // [rows, 16]
  float* factors;      // [rows] what a row's dots are multiplied by
  float* steps;        // [rows] what its weights are multiples of
  std::byte* values;   // a tile

  Scratch(std::byte* at, int64_t rows, int64_t padded_width) {
    queries = at;
    scores = reinterpret_cast<float*>(at += rows * (padded_width * 4 + 64));
    weights = at += rows * kBlock * 4;
    sums = reinterpret_cast<float*>(at += rows * kBlock * 4);
    factors = reinterpret_cast<float*>(at += rows * 64);
    steps = factors + rows;
    values = at + (rows * 8 + 63) / 64 * 64;
  }
};
constexpr int64_t kWeightBytes = kBlock * 4;  // of a row

/// Up to four tiles at consecutive positions.
struct Block {
  int tiles;
  int64_t position;  // of the first
  unsigned partial;  // bit t: not every row sees all of tile t
  const std::byte *keys[kBlockTiles], *values[kBlockTiles];
  const std::byte *next_keys[kBlockTiles], *next_values[kBlockTiles];  // asked for meanwhile
};

/// The positions of a tile that a row sees: from `first` to `last`.
struct Visible {
  int first = 0, last = kTile - 1;
};

inline Visible visible_of(const QueryRows& rows, int64_t position, int64_t tile) {
  Visible visible;
  if (rows.lowest > tile) visible.first = static_cast<int>(rows.lowest - tile);
  if (position < tile + kTile - 1) visible.last = static_cast<int>(position - tile);
  return visible;
}

inline void ask_for(const std::byte* at) { __builtin_prefetch(at, 0, 2); }

/// As few panels as can be of at most `most` rows, of sizes as equal as can be: this is the first one's.
inline int panel_size(int64_t rows, int64_t most) {
  const int64_t count = (rows + most - 1) / most;
  return static_cast<int>((rows + count - 1) / count);
}

inline int64_t panel_bytes(int64_t rows, int64_t padded_width) { return rows * (padded_width * 4 + 64); }

constexpr int power_of_two(int n) { return n >= 4 ? 4 : n >= 2 ? 2 : 1; }

inline float widened(uint16_t bits) {
  const uint32_t wide = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &wide, sizeof(value));
  return value;
}

inline const std::byte* tile_at(const HeadTiles& tiles, const std::byte* head, int64_t position) {
  const int64_t slot = position - tiles.table.first_position;
  return head + tiles.table.blocks[slot / tiles.block_size] * tiles.block_bytes +
         slot % tiles.block_size / kTile * tiles.tile_bytes;
}

inline Block block_of(const QueryRows& rows, const SplitProblem& p, int64_t position) {
  const int64_t end = (position / kBlock + 1) * kBlock;
  Block block = {};
  block.position = position;
  block.tiles = static_cast<int>(((end < p.end ? end : p.end) - position) / kTile);
  for (int t = 0; t < block.tiles; ++t, position += kTile) {
    const int64_t next = position + kBlock < p.prefetch_end ? position + kBlock : position;
    if (rows.lowest > position || rows.first_position < position + kTile - 1) block.partial |= 1u << t;
    block.keys[t] = tile_at(p.tiles, p.tiles.keys, position);
    block.values[t] = tile_at(p.tiles, p.tiles.values, position);
    block.next_keys[t] = tile_at(p.tiles, p.tiles.keys, next);
    block.next_values[t] = tile_at(p.tiles, p.tiles.values, next);
  }
  return block;
}

/// Some columns of a tile's values.
struct Columns {
  int64_t padded_width;    // of the sums
  int64_t offset, stride;  // bytes from the tile's first to theirs, from kTogether positions to the next
};

/// Products in FP32 of any type, whose values are widened: kTogether of them fill four bytes.
template <CacheType kType>
struct Widened {
  static constexpr bool kInt8 = kType == CacheType::Int8;
  static constexpr bool kMasksValues = !kInt8;  // bits of positions not written yet may be a NaN's
  static constexpr int kTogether = kType == CacheType::Float32 ? 1 : kInt8 ? 4 : 2;
  static constexpr int64_t kTileWeightBytes = kTile * 4;

  template <bool kKeys>
  static inline void widen(const std::byte* from, Floats* to) {
    if constexpr (kType == CacheType::Float32) {
      to[0] = load(reinterpret_cast<const float*>(from));
    } else if constexpr (kInt8) {
      widen_bytes<kKeys>(from, to);
    } else {
      widen_bf16(from, to);
    }
  }

  static int64_t peak(int64_t rounds) {
    Floats sums[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) sums[i] = set1(0);
    for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        sums[i] = fma(set1(3), set1(1), sums[i]);
        asm volatile("" : "+v"(sums[i]));
      }
    }
    return rounds * 8 * kLanes * 2;
  }

  /// Row r of a panel; returns what its products are multiples of.
  static float fill_panel(const float* row, int64_t r, int64_t rows, int64_t padded_width, std::byte* panel) {
    float* to = reinterpret_cast<float*>(panel + rows * 64);
    for (int64_t d = 0; d < padded_width; ++d) to[d * rows + r] = row[d];
    return 1;
  }

  /// scores [kRows, 64] of kTiles tiles.
  template <int kRows, int kTiles>
  static void dots(const std::byte* panel, const std::byte* const* keys, const std::byte* const* next,
                   int64_t padded_width, float* scores) {
    const float* q = reinterpret_cast<const float*>(panel + kRows * 64);
    Floats sums[kRows][kTiles * kParts];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int i = 0; i < kTiles * kParts; ++i) sums[r][i] = set1(0);
    }
    for (int64_t at = 0; at < padded_width / kTogether * 64; at += 64, q += kTogether * kRows) {
#pragma GCC unroll 8
      for (int i = 0; i < kTiles * kParts; ++i) {
        if (next && i % kParts == 0) ask_for(next[i / kParts] + at);
        Floats k[kTogether];
        widen<true>(keys[i / kParts] + at + i % kParts * kLanes * 4, k);
#pragma GCC unroll 4
        for (int j = 0; j < kTogether; ++j) {
#pragma GCC unroll 16
          for (int r = 0; r < kRows; ++r) sums[r][i] = fma(k[j], set1(q[j * kRows + r]), sums[r][i]);
        }
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int i = 0; i < kTiles * kParts; ++i) store(scores + r * kBlock + i * kLanes, sums[r][i]);
    }
  }

  /// Vector i of a row's weights, of INT8 times the values' scales as `scaled`; returns what belongs in their sum.
  static Floats take_weight(Floats weight, Floats scaled, int i, std::byte* weights, float*) {
    store(reinterpret_cast<float*>(weights) + i * kLanes, scaled);
    return weight;
  }
  static float finish_weights(const float*, int, std::byte*) { return 1; }

  /// sums [kRows, padded_width] += weights of `tiles` tiles times kCount vectors of their values from a column on.
  template <int kRows, int kCount>
  static void weigh(const std::byte* weights, const float*, int tiles, const std::byte* const* values,
                    const std::byte* const* next, const Columns& columns, float* to) {
    const float* w = reinterpret_cast<const float*>(weights);
    Floats sums[kRows][kCount];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int c = 0; c < kCount; ++c) sums[r][c] = load(to + r * columns.padded_width + c * kLanes);
    }
    for (int t = 0; t < tiles; ++t) {
      int64_t at = columns.offset;
      for (int i = 0; i < kTile / kTogether; ++i, at += columns.stride, w += kTogether) {
#pragma GCC unroll 8
        for (int c = 0; c < kCount; ++c) {
          if (next && c % kParts == 0) ask_for(next[t] + at + c * kLanes * 4);
          Floats v[kTogether];
          widen<false>(values[t] + at + c * kLanes * 4, v);
#pragma GCC unroll 4
          for (int j = 0; j < kTogether; ++j) {
#pragma GCC unroll 16
            for (int r = 0; r < kRows; ++r) sums[r][c] = fma(v[j], set1(w[r * kBlock + j]), sums[r][c]);
          }
        }
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int c = 0; c < kCount; ++c) store(to + r * columns.padded_width + c * kLanes, sums[r][c]);
    }
  }
};

template <typename F, int kCount>
struct Table {
  typename F::Function of_rows[kCount];
};
/// For 1, 2, ... rows.
template <typename F, int... kRows>
constexpr auto table_of(std::integer_sequence<int, kRows...>) {
  return Table<F, sizeof...(kRows)>{{F::template of<kRows + 1>...}};
}

/// Dots of a panel of 1, 2, ... rows with a block's keys.
template <typename A>
struct DotsOfBlock {
  using Function = void (*)(const std::byte* panel, const Block& block, bool asks, int64_t padded_width, float* scores);

  template <int kRows>
  static void of(const std::byte* panel, const Block& block, bool asks, int64_t padded_width, float* scores) {
    constexpr int kTiles = power_of_two(kSums / (kRows * kParts));
    int t = 0;
    t = some<kRows, kTiles>(t, panel, block, asks, padded_width, scores);
    if constexpr (kTiles > 2) t = some<kRows, 2>(t, panel, block, asks, padded_width, scores);
    if constexpr (kTiles > 1) some<kRows, 1>(t, panel, block, asks, padded_width, scores);
  }

  template <int kRows, int kTiles>
  static inline int some(int t, const std::byte* panel, const Block& block, bool asks, int64_t padded_width,
                         float* scores) {
    for (; t + kTiles <= block.tiles; t += kTiles) {
      A::template dots<kRows, kTiles>(panel, block.keys + t, asks ? block.next_keys + t : nullptr, padded_width,
                                      scores + t * kTile);
    }
    return t;
  }
};

/// Weighted values of 1, 2, ... rows.
template <typename A>
struct WeighTiles {
  using Function = void (*)(const std::byte* weights, const float* steps, int tiles, const std::byte* const* values,
                            const std::byte* const* next, int64_t padded_width, float* to);

  template <int kRows>
  static void of(const std::byte* weights, const float* steps, int tiles, const std::byte* const* values,
                 const std::byte* const* next, int64_t padded_width, float* to) {
    for (int64_t first = 0; first < padded_width; first += kValueColumns) {
      const int64_t count = padded_width - first < kValueColumns ? padded_width - first : kValueColumns;
      int64_t column = some<kRows, kColumns>(0, first, count, weights, steps, tiles, values, next, padded_width, to);
      column = some<kRows, 2>(column, first, count, weights, steps, tiles, values, next, padded_width, to);
      some<kRows, 1>(column, first, count, weights, steps, tiles, values, next, padded_width, to);
    }
  }

  template <int kRows, int kCount>
  static inline int64_t some(int64_t column, int64_t first, int64_t count, const std::byte* weights, const float* steps,
                             int tiles, const std::byte* const* values, const std::byte* const* next,
                             int64_t padded_width, float* to) {
    constexpr int64_t kTileBytes = kTile / A::kTogether * 4;  // of one column
    for (; column + kCount * kLanes <= count; column += kCount * kLanes) {
      const Columns columns = {padded_width, first * kTileBytes + column * 4, count * 4};
      A::template weigh<kRows, kCount>(weights, steps, tiles, values, next, columns, to + first + column);
    }
    return column;
  }
};

template <typename A>
class Split {
 public:
  static void prepare(const QueryRows& r, std::byte* at) {
    const int64_t count = r.positions * r.group, padded_width = r.padded_width;
    const Scratch scratch(at, count, padded_width);
    float* row = reinterpret_cast<float*>(scratch.values);
    for (int64_t first = 0, size; first < count; first += size) {
      size = panel_size(count - first, kDotRows);
      for (int64_t i = 0; i < size; ++i) {
        load_query(r, first + i, row);
        const float step =
            A::fill_panel(row, i, size, padded_width, scratch.queries + panel_bytes(first, padded_width));
        scratch.factors[first + i] = step * r.scale;
      }
    }
  }

  static void run(const QueryRows& rows, const SplitProblem& problem) { Split(rows, problem).run(); }

 private:
  const QueryRows& rows;
  const SplitProblem& p;
  const int64_t count;
  const Scratch scratch;

  Split(const QueryRows& r, const SplitProblem& problem)
      : rows(r), p(problem), count(r.positions * r.group), scratch(problem.scratch, count, r.padded_width) {}

  static void load_query(const QueryRows& r, int64_t row, float* to) {
    const int64_t from = row / r.group * r.position_stride + row % r.group * r.width;
    if (r.bf16) {
      for (int64_t d = 0; d < r.width; ++d) to[d] = widened(static_cast<const uint16_t*>(r.queries)[from + d]);
    } else {
      std::memcpy(to, static_cast<const float*>(r.queries) + from, r.width * sizeof(float));
    }
    for (int64_t d = r.width; d < r.padded_width; ++d) to[d] = 0;
  }

  void run() const {
    if (p.first) ask_for_block(block_of(rows, p, p.begin));
    for (int64_t i = 0; i < count; ++i) p.out.maxima[i] = -kLargestFloat;
    for (int64_t i = 0; i < count * kTile; ++i) scratch.sums[i] = 0;
    for (int64_t i = 0; i < count * rows.padded_width; ++i) p.out.values[i] = 0;
    for (int64_t position = p.begin; position < p.end;) {
      const Block block = block_of(rows, p, position);
      for (int64_t first = 0, size; first < count; first += size) {
        static constexpr auto kDots = table_of<DotsOfBlock<A>>(std::make_integer_sequence<int, kDotRows>());
        size = panel_size(count - first, kDotRows);
        kDots.of_rows[size - 1](scratch.queries + panel_bytes(first, rows.padded_width), block, first == 0,
                                rows.padded_width, scratch.scores + first * kBlock);
      }
      for (int64_t row = 0; row < count; ++row) {
        bound_scores(block, row);
        if (row < block.tiles) {
          for (int64_t at = 0; at < p.tiles.tile_bytes / 4; at += 64) ask_for(block.next_values[row] + at);
        }
        soften(block, row);
      }
      weigh(block);
      position += block.tiles * kTile;
    }
    for (int64_t i = 0; i < count; ++i) {
      Floats sum = load(scratch.sums + i * kTile);
      for (int part = 1; part < kParts; ++part) sum = add(sum, load(scratch.sums + i * kTile + part * kLanes));
      p.out.sums[i] = sum_of(sum);
    }
  }

  void ask_for_block(const Block& block) const {
    for (int t = 0; t < block.tiles; ++t) {
      for (int64_t at = 0; at < p.tiles.tile_bytes; at += 64) ask_for(block.keys[t] + at);
    }
    for (int t = 0; t < block.tiles; ++t) {
      for (int64_t at = 0; at < p.tiles.tile_bytes; at += 64) ask_for(block.values[t] + at);
    }
  }

  Floats scales_at(const std::byte* tile, int first) const {
    return load(reinterpret_cast<const float*>(tile + rows.padded_width * kTile) + first);
  }

  /// What a row does not see becomes `hidden`: vector i of a block's positions.
  Floats seen(const Block& block, int64_t row, int i, Floats x, Floats hidden) const {
    const int t = i / kParts;
    if (!(block.partial >> t & 1)) return x;
    const Visible visible = visible_of(rows, rows.first_position + row / rows.group, block.position + t * kTile);
    return keep(x, visible.first - i % kParts * kLanes, visible.last - i % kParts * kLanes, hidden);
  }

  /// A row's scores from its dots, finite unless NaN; the row's sums so far to the new maximum.
  void bound_scores(const Block& block, int64_t row) const {
    float* scores = scratch.scores + row * kBlock;
    const Floats factor = set1(scratch.factors[row]), most = set1(kLargestFloat), least = set1(-kLargestFloat);
    Floats largest = least;
    for (int i = 0; i < block.tiles * kParts; ++i) {
      Floats score = mul(load(scores + i * kLanes), factor);
      if constexpr (A::kInt8) score = mul(score, scales_at(block.keys[i / kParts], i % kParts * kLanes));
      score = seen(block, row, i, min_or_nan(most, max_or_nan(least, score)), least);
      largest = max_or_nan(largest, score);
      store(scores + i * kLanes, score);
    }
    const float high = max_of(largest), before = p.out.maxima[row];
    if (!(high > before)) return;
    p.out.maxima[row] = high;
    const Floats ratio = exp2_of(set1(before - high));
    float* sums = scratch.sums + row * kTile;
    for (int part = 0; part < kParts; ++part) store(sums + part * kLanes, mul(load(sums + part * kLanes), ratio));
    float* values = p.out.values + row * rows.padded_width;
    for (int64_t d = 0; d < rows.padded_width; d += kLanes) store(values + d, mul(load(values + d), ratio));
  }

  /// A row's weights from its scores.
  void soften(const Block& block, int64_t row) const {
    float *scores = scratch.scores + row * kBlock, *sums = scratch.sums + row * kTile;
    std::byte* weights = scratch.weights + row * kWeightBytes;
    const Floats maximum = set1(p.out.maxima[row]);
    for (int i = 0; i < block.tiles * kParts; ++i) {
      Floats weight = exp2_of(sub(load(scores + i * kLanes), maximum)), scaled = weight;
      if constexpr (A::kInt8) scaled = mul(weight, scales_at(block.values[i / kParts], i % kParts * kLanes));
      weight = seen(block, row, i, weight, set1(0));
      scaled = A::kInt8 ? seen(block, row, i, scaled, set1(0)) : weight;
      float* sum = sums + i % kParts * kLanes;
      store(sum, add(load(sum), A::take_weight(weight, scaled, i, weights, scores)));
    }
    scratch.steps[row] = A::finish_weights(scores, block.tiles, weights);
  }

  void weigh(const Block& block) const {
    const unsigned masked = A::kMasksValues ? block.partial : 0;
    for (int t = 0, end; t < block.tiles; t = end) {
      end = t + 1;
      if (masked >> t & 1) {
        weigh_masked(block, t);
      } else {
        while (end < block.tiles && !(masked >> end & 1)) ++end;
        weigh_rows(0, count, t, end - t, block.values + t, block.next_values + t);
      }
    }
  }

  void weigh_rows(int64_t begin, int64_t end, int t, int tiles, const std::byte* const* values,
                  const std::byte* const* next) const {
    static constexpr auto kWeigh = table_of<WeighTiles<A>>(std::make_integer_sequence<int, kWeighRows>());
    for (int64_t first = begin, size; first < end; first += size) {
      size = panel_size(end - first, kWeighRows);
      kWeigh.of_rows[size - 1](scratch.weights + first * kWeightBytes + t * A::kTileWeightBytes, scratch.steps + first,
                               tiles, values, first == 0 ? next : nullptr, rows.padded_width,
                               p.out.values + first * rows.padded_width);
    }
  }

  /// One tile, of which each position's rows see another part: the rest is zeros there, whatever its bits are.
  void weigh_masked(const Block& block, int t) const {
    constexpr int kGroups = kTile / A::kTogether;
    for (int64_t i = 0; i < rows.positions; ++i) {
      const Visible visible = visible_of(rows, rows.first_position + i, block.position + t * kTile);
      Word masks[kGroups] = {};
      for (int slot = visible.first; slot <= visible.last; ++slot) {
        masks[slot / A::kTogether] |= A::kTogether == 1 ? 0xFFFFFFFF : 0xFFFFu << slot % A::kTogether * 16;
      }
      const Word* from = reinterpret_cast<const Word*>(block.values[t]);
      Word* to = reinterpret_cast<Word*>(scratch.values);
      for (int64_t first = 0; first < rows.padded_width; first += kValueColumns) {
        const int64_t left = rows.padded_width - first, columns = left < kValueColumns ? left : kValueColumns;
        for (int g = 0; g < kGroups; ++g) {
          for (int64_t d = 0; d < columns; ++d) *to++ = *from++ & masks[g];
        }
      }
      const std::byte* masked = scratch.values;
      weigh_rows(i * rows.group, (i + 1) * rows.group, t, 1, &masked, block.next_values + t);
    }
  }
};

inline void merge_rows(int64_t rows, int64_t padded_width, const PartialRows& next, const PartialRows& sum) {
  for (int64_t row = 0; row < rows; ++row) {
    const float high = next.maxima[row] > sum.maxima[row] ? next.maxima[row] : sum.maxima[row];
    const Floats old_ratio = exp2_of(set1(sum.maxima[row] - high)), new_ratio = exp2_of(set1(next.maxima[row] - high));
    sum.maxima[row] = high;
    const Floats total = fma(set1(sum.sums[row]), old_ratio, mul(set1(next.sums[row]), new_ratio));
    sum.sums[row] = first_of(total);
    for (int64_t d = row * padded_width; d < (row + 1) * padded_width; d += kLanes) {
      store(sum.values + d, fma(load(sum.values + d), old_ratio, mul(load(next.values + d), new_ratio)));
    }
  }
}

template <typename F32, typename Bf16, typename Int8>
constexpr AttentionKernels kernels_of() {
  return {{{Split<F32>::prepare, Split<F32>::run, F32::peak},
           {Split<Bf16>::prepare, Split<Bf16>::run, Bf16::peak},
           {Split<Int8>::prepare, Split<Int8>::run, Int8::peak}},
          merge_rows};
}
