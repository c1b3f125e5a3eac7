// Causal attention of a span among itself. Blocks of queries see all their keys at once, so that no sum is rescaled;
// scores are computed again in backward. Widths and numbers of keys are padded to whole vectors with zeros.

template <typename W>
struct VectorOf {
  typedef W Type __attribute__((vector_size(64), aligned(alignof(W)), may_alias));
};
template <typename W>
using Vector = typename VectorOf<W>::Type;

constexpr int64_t kQueries = 16;  // of a block

inline int64_t padded(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// C[M, N] (+)= A B for M rows and L vectors of columns, all in registers.
template <typename W, int M, int L>
inline __attribute__((always_inline)) void tile(const W* a, int64_t a_row, int64_t a_column, const W* b, int64_t ldb,
                                                int64_t depth, W* c, int64_t ldc, bool add) {
  constexpr int64_t kWidth = 64 / sizeof(W);
  Vector<W> sums[M][L] = {};
  for (int64_t k = 0; k < depth; ++k) {
    Vector<W> row[L];
    for (int l = 0; l < L; ++l) row[l] = *reinterpret_cast<const Vector<W>*>(b + k * ldb + l * kWidth);
    for (int m = 0; m < M; ++m) {
      const W value = a[m * a_row + k * a_column];
      for (int l = 0; l < L; ++l) sums[m][l] += value * row[l];
    }
  }
  for (int m = 0; m < M; ++m)
    for (int l = 0; l < L; ++l) {
      auto* to = reinterpret_cast<Vector<W>*>(c + m * ldc + l * kWidth);
      *to = add ? *to + sums[m][l] : sums[m][l];
    }
}

// C[m, n] (+)= sum_k A(m, k) B[k, n], A(m, k) = a[m * a_row + k * a_column]; m a multiple of 4, n of kLanes.
template <typename W>
void product(int64_t m, int64_t n, int64_t depth, const W* a, int64_t a_row, int64_t a_column, const W* b, int64_t ldb,
             W* c, int64_t ldc, bool add) {
  constexpr int64_t kStep = 64 / sizeof(W);
  for (int64_t j = 0; j < n;) {
    const bool pair = n - j >= 2 * kStep;
    for (int64_t i = 0; i < m; i += 4) {
      const W* a_i = a + i * a_row;
      W* c_ij = c + i * ldc + j;
      if (pair) {
        tile<W, 4, 2>(a_i, a_row, a_column, b + j, ldb, depth, c_ij, ldc, add);
      } else {
        tile<W, 4, 1>(a_i, a_row, a_column, b + j, ldb, depth, c_ij, ldc, add);
      }
    }
    j += pair ? 2 * kStep : kStep;
  }
}

// Rows of one head into [rows, padded width] with zeros behind, times a factor.
template <typename S>
void pack_rows(const S* from, int64_t rows, int64_t stride, int64_t width, int64_t padded_rows, Wide<S> factor,
               Wide<S>* to) {
  const int64_t P = padded(width);
  for (int64_t r = 0; r < padded_rows; ++r, to += P)
    for (int64_t c = 0; c < P; ++c) to[c] = r < rows && c < width ? wide(from[r * stride + c]) * factor : 0;
}

// The same transposed: [width, padded rows].
template <typename S>
void pack_columns(const S* from, int64_t rows, int64_t stride, int64_t width, Wide<S>* to) {
  const int64_t P = padded(rows);
  for (int64_t r = 0; r < P; ++r)
    for (int64_t c = 0; c < width; ++c) to[c * P + r] = r < rows ? wide(from[r * stride + c]) : 0;
}

// Scores [kQueries, keys] of the queries from `first` on become their shares; hidden keys get 0.
template <typename W>
void softmax_rows(W* scores, int64_t stride, int64_t first, int64_t keys) {
  for (int64_t i = 0; i < kQueries; ++i, scores += stride) {
    const int64_t visible = first + i + 1 < keys ? first + i + 1 : keys;
    for (int64_t j = visible; j < keys; ++j) scores[j] = scores[0];
    W high[kLanes];
    for (int64_t l = 0; l < kLanes; ++l) high[l] = scores[l];
    for (int64_t j = kLanes; j < keys; j += kLanes)
      for (int64_t l = 0; l < kLanes; ++l) high[l] = scores[j + l] > high[l] ? scores[j + l] : high[l];
    W highest = high[0];
    for (int64_t l = 1; l < kLanes; ++l) highest = high[l] > highest ? high[l] : highest;
    for (int64_t j = 0; j < keys; ++j) scores[j] = exp_of(scores[j] - highest);
    for (int64_t j = visible; j < keys; ++j) scores[j] = 0;
    const W sum = sum_over<W>(keys, [&](int64_t j) { return scores[j]; });
    const W share = 1 / sum;
    for (int64_t j = 0; j < keys; ++j) scores[j] *= share;
  }
}

template <typename S>
void store_rows(const Wide<S>* from, int64_t rows, int64_t width, int64_t stride, Wide<S> factor, S* to) {
  const int64_t P = padded(width);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < width; ++c) put(to[r * stride + c], from[r * P + c] * factor);
}

// Pieces of the scratch; attention_scratch() counts them.
template <typename W>
struct Scratch {
  Scratch(W* begin, int64_t rows, int64_t width) {
    const int64_t R = padded(rows), P = padded(width);
    const auto take = [&](int64_t count) { return (begin += count) - count; };
    keys_by_column = take(P * R), values_by_column = take(P * R);
    keys = take(R * P), values = take(R * P), dkeys = take(R * P), dvalues = take(R * P);
    scores = take(kQueries * R), dscores = take(kQueries * R);
    queries = take(kQueries * P), outs = take(kQueries * P), dqueries = take(kQueries * P);
  }
  W *keys_by_column, *values_by_column, *keys, *values, *dkeys, *dvalues;
  W *scores, *dscores, *queries, *outs, *dqueries;
};

template <typename S>
void attention(const AttentionProblem<S>& p, S* out) {
  using W = Wide<S>;
  const int64_t R = padded(p.rows), P = padded(p.width), shared = p.num_heads / p.num_key_heads;
  const int64_t q_stride = p.num_heads * p.width, k_stride = p.num_key_heads * p.width;
  const W scale = 1 / __builtin_sqrt(static_cast<W>(p.width));
  const Scratch<W> s(p.scratch, p.rows, p.width);
  pack_columns(p.k + p.key_head * p.width, p.rows, k_stride, p.width, s.keys_by_column);
  pack_rows(p.v + p.key_head * p.width, p.rows, k_stride, p.width, R, W(1), s.values);
  for (int64_t h = p.key_head * shared; h < (p.key_head + 1) * shared; ++h) {
    for (int64_t first = 0; first < p.rows; first += kQueries) {
      const int64_t queries = p.rows - first < kQueries ? p.rows - first : kQueries, keys = first + kQueries;
      const int64_t offset = first * q_stride + h * p.width;
      pack_rows(p.q + offset, queries, q_stride, p.width, kQueries, scale, s.queries);
      product<W>(kQueries, keys, p.width, s.queries, P, 1, s.keys_by_column, R, s.scores, R, false);
      softmax_rows(s.scores, R, first, keys);
      product<W>(kQueries, P, keys, s.scores, R, 1, s.values, P, s.outs, P, false);
      store_rows(s.outs, queries, p.width, q_stride, W(1), out + offset);
    }
  }
}

// Scores' gradients from shares and the shares' gradients, in place of the latter. A query that sees one key alone gets
// exactly zero, which an optimiser that divides by gradients' sizes needs.
template <typename W>
void softmax_backward(const W* shares, W* gradients, int64_t stride, int64_t keys) {
  for (int64_t i = 0; i < kQueries; ++i, shares += stride, gradients += stride) {
    const W along = sum_over<W>(keys, [&](int64_t j) { return shares[j] * gradients[j]; });
    for (int64_t j = 0; j < keys; ++j) gradients[j] = shares[j] * (gradients[j] - along);
  }
}

template <typename S>
void attention_backward(const AttentionProblem<S>& p, const S* dout, S* dq, S* dk, S* dv) {
  using W = Wide<S>;
  const int64_t R = padded(p.rows), P = padded(p.width), shared = p.num_heads / p.num_key_heads;
  const int64_t q_stride = p.num_heads * p.width, k_stride = p.num_key_heads * p.width, at = p.key_head * p.width;
  const W scale = 1 / __builtin_sqrt(static_cast<W>(p.width));
  const Scratch<W> s(p.scratch, p.rows, p.width);
  pack_columns(p.k + at, p.rows, k_stride, p.width, s.keys_by_column);
  pack_columns(p.v + at, p.rows, k_stride, p.width, s.values_by_column);
  pack_rows(p.k + at, p.rows, k_stride, p.width, R, W(1), s.keys);
  for (int64_t i = 0; i < R * P; ++i) s.dkeys[i] = s.dvalues[i] = 0;
  for (int64_t h = p.key_head * shared; h < (p.key_head + 1) * shared; ++h) {
    for (int64_t first = 0; first < p.rows; first += kQueries) {
      const int64_t queries = p.rows - first < kQueries ? p.rows - first : kQueries, keys = first + kQueries;
      const int64_t offset = first * q_stride + h * p.width;
      pack_rows(p.q + offset, queries, q_stride, p.width, kQueries, scale, s.queries);
      pack_rows(dout + offset, queries, q_stride, p.width, kQueries, W(1), s.outs);
      product<W>(kQueries, keys, p.width, s.queries, P, 1, s.keys_by_column, R, s.scores, R, false);
      softmax_rows(s.scores, R, first, keys);
      product<W>(kQueries, keys, p.width, s.outs, P, 1, s.values_by_column, R, s.dscores, R, false);
      product<W>(keys, P, kQueries, s.scores, 1, R, s.outs, P, s.dvalues, P, true);
      softmax_backward(s.scores, s.dscores, R, keys);
      product<W>(kQueries, P, keys, s.dscores, R, 1, s.keys, P, s.dqueries, P, false);
      product<W>(keys, P, kQueries, s.dscores, 1, R, s.queries, P, s.dkeys, P, true);  // the queries carry the scale
      store_rows(s.dqueries, queries, p.width, q_stride, scale, dq + offset);
    }
  }
  store_rows(s.dkeys, p.rows, p.width, k_stride, W(1), dk + at);
  store_rows(s.dvalues, p.rows, p.width, k_stride, W(1), dv + at);
}
