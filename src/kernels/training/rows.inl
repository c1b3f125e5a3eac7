// Kernels that go through rows once: norms, the gated product, heads before attention, routed rows.

template <typename S>
void norm(const S* x, const S* weight, int64_t rows, int64_t width, double eps, S* y, Wide<S>* scales) {
  using W = Wide<S>;
  for (int64_t r = 0; r < rows; ++r, x += width, y += width) {
    const W squares = sum_over<W>(width, [&](int64_t c) { return wide(x[c]) * wide(x[c]); });
    const W scale = 1 / __builtin_sqrt(squares / static_cast<W>(width) + static_cast<W>(eps));
    scales[r] = scale;
#pragma GCC ivdep
    for (int64_t c = 0; c < width; ++c) put(y[c], rounded(wide(x[c]) * scale, S()) * wide(weight[c]));
  }
}

template <typename S>
void norm_backward(const S* x, const S* weight, const Wide<S>* scales, const S* dy, int64_t rows, int64_t width, S* dx,
                   Wide<S>* dweight) {
  using W = Wide<S>;
  for (int64_t c = 0; c < width; ++c) dweight[c] = 0;
  for (int64_t r = 0; r < rows; ++r, x += width, dy += width, dx += width) {
    const W scale = scales[r];
#pragma GCC ivdep
    for (int64_t c = 0; c < width; ++c) dweight[c] += wide(dy[c]) * (wide(x[c]) * scale);
    const W along = sum_over<W>(width, [&](int64_t c) { return wide(dy[c]) * wide(weight[c]) * (wide(x[c]) * scale); });
    const W mean = along / static_cast<W>(width);
#pragma GCC ivdep
    for (int64_t c = 0; c < width; ++c)
      put(dx[c], scale * (wide(dy[c]) * wide(weight[c]) - wide(x[c]) * scale * mean));
  }
}

template <typename S>
void swiglu(const S* gate, const S* up, int64_t rows, int64_t width, int64_t stride, S* y) {
  using W = Wide<S>;
  for (int64_t r = 0; r < rows; ++r, gate += stride, up += stride, y += width)
#pragma GCC ivdep
    for (int64_t c = 0; c < width; ++c) {
      const W g = wide(gate[c]);
      put(y[c], g / (1 + exp_of(-g)) * wide(up[c]));
    }
}

template <typename S>
void swiglu_backward(const S* gate, const S* up, const S* dy, int64_t rows, int64_t width, int64_t stride, S* dgate,
                     S* dup, S* y) {
  using W = Wide<S>;
  for (int64_t r = 0; r < rows; ++r) {
#pragma GCC ivdep
    for (int64_t c = 0; c < width; ++c) {
      const W g = wide(gate[c]), u = wide(up[c]), d = wide(dy[c]);
      const W share = 1 / (1 + exp_of(-g)), silu = g * share;
      put(y[c], silu * u);
      put(dup[c], d * silu);
      put(dgate[c], d * u * (share * (1 + g * (1 - share))));
    }
    gate += stride, up += stride, dgate += stride, dup += stride, dy += width, y += width;
  }
}

template <typename S>
void prepare_heads(const S* x, const HeadRows<S>& shape, S* y, Wide<S>* scales) {
  using W = Wide<S>;
  const int64_t K = shape.width;
  for (int64_t r = 0; r < shape.rows; ++r) {
    const W* rotation = shape.rotations ? shape.rotations + r * K : nullptr;
    const W factor = shape.factors ? shape.factors[r] : W(1);
    for (int64_t h = 0; h < shape.heads; ++h, x += K, y += K) {
      W scale = factor;
      if (shape.eps >= 0) {  // a rotation does not change the length
        const W squares = sum_over<W>(K, [&](int64_t c) { return wide(x[c]) * wide(x[c]); });
        scale = 1 / __builtin_sqrt(squares / static_cast<W>(K) + static_cast<W>(shape.eps));
        scales[r * shape.heads + h] = scale;
        scale *= factor;
      }
      if (rotation) {
#pragma GCC ivdep
        for (int64_t c = 0; c < K; c += 2) {
          const W a = wide(x[c]), b = wide(x[c + 1]), cosine = rotation[c], sine = rotation[c + 1];
          put(y[c], (a * cosine - b * sine) * scale);
          put(y[c + 1], (a * sine + b * cosine) * scale);
        }
      } else {
#pragma GCC ivdep
        for (int64_t c = 0; c < K; ++c) put(y[c], wide(x[c]) * scale);
      }
    }
  }
}

template <typename S>
void prepare_heads_backward(const S* dy, const S* y, const Wide<S>* scales, const HeadRows<S>& shape, S* dx) {
  using W = Wide<S>;
  const int64_t K = shape.width;
  for (int64_t r = 0; r < shape.rows; ++r) {
    const W* rotation = shape.rotations ? shape.rotations + r * K : nullptr;
    for (int64_t h = 0; h < shape.heads; ++h, dy += K, y += K, dx += K) {
      W scale = shape.factors ? shape.factors[r] : W(1), mean = 0;
      if (shape.eps >= 0) {
        scale = scales[r * shape.heads + h];
        mean = sum_over<W>(K, [&](int64_t c) { return wide(dy[c]) * wide(y[c]); }) / static_cast<W>(K);
      }
      const auto before = [&](int64_t c) { return scale * (wide(dy[c]) - wide(y[c]) * mean); };
      if (rotation) {
#pragma GCC ivdep
        for (int64_t c = 0; c < K; c += 2) {
          const W a = before(c), b = before(c + 1), cosine = rotation[c], sine = rotation[c + 1];
          put(dx[c], a * cosine + b * sine);
          put(dx[c + 1], b * cosine - a * sine);
        }
      } else {
#pragma GCC ivdep
        for (int64_t c = 0; c < K; ++c) put(dx[c], before(c));
      }
    }
  }
}

template <typename S>
void gather_scaled(const S* x, const S* scores, const RoutedRows& routed, int64_t begin, int64_t end, int64_t width,
                   S* rows) {
  for (int64_t n = begin; n < end; ++n) {
    const S* from = x + (routed.token_of_row ? routed.token_of_row[n] : n) * width;
    const Wide<S> score = wide(scores[routed.choice_of_row ? routed.choice_of_row[n] : n]);
#pragma GCC ivdep
    for (int64_t c = 0; c < width; ++c) put(rows[n * width + c], wide(from[c]) * score);
  }
}

template <typename S>
void gather(const S* x, const RoutedRows& routed, int64_t begin, int64_t end, int64_t width, S* rows) {
  for (int64_t n = begin; n < end; ++n) {
    const S* from = x + (routed.token_of_row ? routed.token_of_row[n] : n) * width;
    for (int64_t c = 0; c < width; ++c) rows[n * width + c] = from[c];
  }
}

template <typename S>
void combine(const S* rows, const RoutedRows& routed, int64_t begin, int64_t end, int64_t width, S* y) {
  const int64_t A = routed.choices;
  const auto row = [&](int64_t choice) {
    return rows + (routed.row_of_choice ? routed.row_of_choice[choice] : choice) * width;
  };
  for (int64_t t = begin; t < end; ++t) {
    S* to = y + t * width;
    const S* first = row(t * A);
    if (A == 1) {
      for (int64_t c = 0; c < width; ++c) to[c] = first[c];
      continue;
    }
    for (int64_t c = 0; c < width; ++c) {
      Wide<S> sum = wide(first[c]);
      for (int64_t a = 1; a < A; ++a) sum += wide(row(t * A + a)[c]);
      put(to[c], sum);
    }
  }
}

template <typename S>
void combine_scaled(const S* drows, const S* x, const S* scores, const RoutedRows& routed, int64_t begin, int64_t end,
                    int64_t width, S* dx, S* dscores) {
  using W = Wide<S>;
  const int64_t A = routed.choices;
  for (int64_t t = begin; t < end; ++t) {
    const S* from = x + t * width;
    S* to = dx + t * width;
    for (int64_t a = 0; a < A; ++a) {
      const int64_t choice = t * A + a;
      const S* d = drows + (routed.row_of_choice ? routed.row_of_choice[choice] : choice) * width;
      const W score = wide(scores[choice]);
      put(dscores[choice], sum_over<W>(width, [&](int64_t c) { return wide(d[c]) * wide(from[c]); }));
      if (a == 0) {
#pragma GCC ivdep
        for (int64_t c = 0; c < width; ++c) put(to[c], wide(d[c]) * score);
      } else {
#pragma GCC ivdep
        for (int64_t c = 0; c < width; ++c) put(to[c], wide(to[c]) + wide(d[c]) * score);
      }
    }
  }
}
