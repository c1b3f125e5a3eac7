// Softmax sums and gradients of blocks of logits.

template <typename T>
void loss_sums(const T* logits, int64_t rows, int64_t columns, const int64_t* targets, const LossSums& sums) {
  for (int64_t r = 0; r < rows; ++r, logits += columns) {
    T high[kLanes], sum[kLanes] = {}, weighted[kLanes] = {};
    for (int64_t i = 0; i < kLanes; ++i) high[i] = logits[0];
    const int64_t whole = columns / kLanes * kLanes;
    for (int64_t c = 0; c < whole; c += kLanes)
      for (int64_t i = 0; i < kLanes; ++i) high[i] = logits[c + i] > high[i] ? logits[c + i] : high[i];
    T highest = high[0];
    for (int64_t i = 0; i < kLanes; ++i) highest = high[i] > highest ? high[i] : highest;
    for (int64_t c = whole; c < columns; ++c) highest = logits[c] > highest ? logits[c] : highest;
    for (int64_t c = 0; c < whole; c += kLanes)
      for (int64_t i = 0; i < kLanes; ++i) {
        const T below = logits[c + i] - highest, e = exp_of(below);
        sum[i] += e;
        weighted[i] += e * below;
      }
    for (int64_t c = whole; c < columns; ++c) {
      const T below = logits[c] - highest, e = exp_of(below);
      sum[c - whole] += e;
      weighted[c - whole] += e * below;
    }
    double s = 0, w = 0;
    for (int64_t i = 0; i < kLanes; ++i) {
      s += sum[i];
      w += weighted[i];
    }
    if (targets[r] >= 0 && targets[r] < columns) sums.target_logit[r] = logits[targets[r]];
    const double old = sums.highest[r], now = highest;
    if (sums.sum[r] == 0) {
      sums.highest[r] = now, sums.sum[r] = s, sums.weighted[r] = w;
    } else if (old >= now) {
      const double factor = __builtin_exp(now - old);
      sums.weighted[r] += factor * (w + s * (now - old));
      sums.sum[r] += factor * s;
    } else {
      const double factor = __builtin_exp(old - now);
      sums.weighted[r] = w + factor * (sums.weighted[r] + sums.sum[r] * (old - now));
      sums.sum[r] = s + factor * sums.sum[r];
      sums.highest[r] = now;
    }
  }
}

template <typename T>
void loss_gradients(T* logits, int64_t rows, int64_t columns, const int64_t* targets,
                    const LossGradients<T>& gradients) {
  for (int64_t r = 0; r < rows; ++r, logits += columns) {
    const T logsumexp = gradients.logsumexp[r], share = gradients.share[r], entropy = gradients.entropy[r];
    for (int64_t c = 0; c < columns; ++c) logits[c] = exp_of(logits[c] - logsumexp) * (share - entropy * logits[c]);
    if (targets[r] >= 0 && targets[r] < columns) logits[targets[r]] += gradients.target[r];
  }
}
