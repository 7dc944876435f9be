// The last step of an equivariant layer in one pass over its largest arrays: the product, the sums of means, the
// rectifier, and the means that the next layer asks for; and its gradient.
//
// Letters: B networks, P, Q, F axes of a tensor, C channels in, D channels out, E numbers before the nonlinearity: D, or
// 2 D where a sigmoid of the second half gates the first. R = Q F rows of one p, T rows of a tile.
// All arrays are row-major. Sums over p are kept for each chunk of the p, so that threads share nothing.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "vectors.h"

namespace {

constexpr long kTile = 10 * kRows;
constexpr long kCacheBytes = 4 << 20;

inline void scale(float* values, float factor, long count) {
  for (long i = 0; i < count; ++i) values[i] *= factor;
}

}  // namespace

extern "C" {

// What is null is not there. Weights are shared by all networks where weight_step is 0.
struct Mix {
  int64_t num_networks, p, q, f, c, d, e, chunks, weight_step, gated;
  float slope;
  const float *values, *weight;        // (B, P, Q, F, C), (B or 1, C, E)
  const float *by_pf, *by_qf, *by_pq;  // (B, P, F, E), (B, Q, F, E), (B, P, Q, E)
  float *out;                          // (B, P, Q, F, D)
  float *mean_pf, *mean_qf, *mean_pq;  // (B, P, F, D), (B, chunks, Q, F, D), (B, P, Q, D)
  float *square;                       // (B, chunks, D)
};

// Gradients of what mix gives, (B, Q, F, D) and (B, D) without chunks, then of what it takes.
struct MixGradient {
  const float *out, *mean_pf, *mean_qf, *mean_pq, *square;
  float *values, *weight;              // (B, P, Q, F, C), (B, chunks, C, E)
  float *by_pf, *by_qf, *by_pq;        // by_qf: (B, chunks, Q, F, E)
};
}

namespace {

struct Place {
  long network, chunk, p, row, count;  // rows row .. row + count of one p
};

// Where the sums of one p go.
struct Sums {
  float *pf, *qf, *pq, *square;
};

// What comes before the nonlinearity, E numbers for each row.
inline void before(const Mix& m, const Place& at, float* pre) {
  const long rows = m.q * m.f, e = m.e, start = (at.network * m.p + at.p) * rows + at.row;
  const float* pf = m.by_pf ? m.by_pf + (at.network * m.p + at.p) * m.f * e : nullptr;
  const float* qf = m.by_qf ? m.by_qf + (at.network * rows + at.row) * e : nullptr;
  const float* pq = m.by_pq ? m.by_pq + (at.network * m.p + at.p) * m.q * e : nullptr;
  for (long r = 0; r < at.count; ++r) {
    const float* first = pf ? pf + (m.f == 1 ? 0 : (at.row + r) % m.f) * e : nullptr;
    const float* last = pq ? pq + (at.row + r) / m.f * e : nullptr;
    for (long i = 0; i < e; i += kLanes) {
      vec sum = qf ? load(qf + r * e + i) : vec{};
      if (first) sum += load(first + i);
      if (last) sum += load(last + i);
      store(pre + r * e + i, sum);
    }
  }
  const float* weight = m.weight + at.network * m.weight_step;
  product(at.count, e, m.c, m.values + start * m.c, m.c, 1, weight, e, pre, e, pre, e);
}

inline vec rectified(vec value, float slope) { return value > 0.0f ? value : value * slope; }
inline vec opened(vec gate) { return 2.0f / (1.0f + exponential(-gate)); }  // 0 to 2, 1 at zero

// The nonlinearity, and the sums of what it gives.
inline void after(const Mix& m, const Place& at, const float* pre, const Sums& sums) {
  const long d = m.d, rows = m.q * m.f;
  float* out = m.out + ((at.network * m.p + at.p) * rows + at.row) * d;
  for (long i = 0; i < d; i += kLanes) {
    vec total{}, square{};
    for (long r = 0; r < at.count; ++r) {
      vec value = load(pre + r * m.e + i);
      value = m.gated ? value * opened(load(pre + r * m.e + d + i)) : rectified(value, m.slope);
      store(out + r * d + i, value);
      float* qf = sums.qf + (at.row + r) * d + i;
      store(qf, load(qf) + value);
      square += value * value;
      if (m.f == 1) {
        total += value;
        continue;
      }
      float* pf = sums.pf + (at.row + r) % m.f * d + i;
      store(pf, load(pf) + value);
      float* pq = sums.pq + (at.row + r) / m.f * d + i;
      store(pq, load(pq) + value);
    }
    if (m.f == 1) store(sums.pf + i, load(sums.pf + i) + total);
    store(sums.square + i, load(sums.square + i) + square);
  }
}

// R rows and 16 columns of a matrix, from the addends to the sums in registers; where there is a rectifier and no gate.
template <int R>
inline void rectified_block(const Mix& m, const float* values, const float* weight, const float* pf, const float* qf,
                            float* out, const Sums& sums, bool past_cache) {
  for (long n = 0; n < m.d; n += kColumns) {
    vec sum[R][2];
#pragma GCC unroll 6
    for (int i = 0; i < R; ++i)
      for (int j = 0; j < 2; ++j) {
        const long at = n + j * kLanes;
        sum[i][j] = (qf ? load(qf + i * m.d + at) : vec{}) + (pf ? load(pf + at) : vec{});
      }
    for (long k = 0; k < m.c; ++k) {
      const vec left = load(weight + k * m.d + n), right = load(weight + k * m.d + n + kLanes);
#pragma GCC unroll 6
      for (int i = 0; i < R; ++i) {
        const vec factor = all(values[i * m.c + k]);
        sum[i][0] += factor * left;
        sum[i][1] += factor * right;
      }
    }
    for (int j = 0; j < 2; ++j) {
      const long at = n + j * kLanes;
      vec total = load(sums.pf + at), square = load(sums.square + at);
#pragma GCC unroll 6
      for (int i = 0; i < R; ++i) {
        const vec value = rectified(sum[i][j], m.slope);
        if (past_cache) stream(out + i * m.d + at, value);
        else store(out + i * m.d + at, value);
        store(sums.qf + i * m.d + at, load(sums.qf + i * m.d + at) + value);
        total += value;
        square += value * value;
      }
      store(sums.pf + at, total);
      store(sums.square + at, square);
    }
  }
}

// Whether the result is too large to be in the cache when it is read again: it then goes to memory at once, and the lines
// that it takes need not be read before.
inline bool leaves_cache(const Mix& m) {
  const bool aligned = reinterpret_cast<uintptr_t>(m.out) % sizeof(vec) == 0;  // d is a multiple of a vector
  return aligned && sizeof(float) * m.num_networks * m.p * m.q * m.f * m.d > kCacheBytes;
}

// All rows of one p of a matrix.
inline void rectified_rows(const Mix& m, long network, long p, Sums sums) {
  const long d = m.d, start = (network * m.p + p) * m.q;
  const float *values = m.values + start * m.c, *weight = m.weight + network * m.weight_step;
  const float* pf = m.by_pf ? m.by_pf + (network * m.p + p) * d : nullptr;
  const float* qf = m.by_qf ? m.by_qf + network * m.q * d : nullptr;
  float* out = m.out + start * d;
  const bool past_cache = leaves_cache(m);
  const auto take = [&](auto block, long rows) {
    block(m, values, weight, pf, qf, out, sums, past_cache);
    values += rows * m.c, out += rows * d, sums.qf += rows * d;
    if (qf) qf += rows * d;
  };
  long left = m.q;
  for (; left >= kRows; left -= kRows) take(rectified_block<kRows>, kRows);
  for (; left >= 2; left -= 2) take(rectified_block<2>, 2);
  if (left) take(rectified_block<1>, 1);
}

void forward(const Mix& m, long network, long chunk) {
  const long rows = m.q * m.f, d = m.d, per = (m.p + m.chunks - 1) / m.chunks;
  std::vector<float> pre(kTile * m.e);
  float* qf = m.mean_qf + (network * m.chunks + chunk) * rows * d;
  float* square = m.square + (network * m.chunks + chunk) * d;
  std::memset(qf, 0, sizeof(float) * rows * d);
  std::memset(square, 0, sizeof(float) * d);
  for (long p = chunk * per; p < std::min<long>(m.p, (chunk + 1) * per); ++p) {
    float* pf = m.mean_pf + (network * m.p + p) * m.f * d;
    float* pq = m.mean_pq ? m.mean_pq + (network * m.p + p) * m.q * d : nullptr;
    std::memset(pf, 0, sizeof(float) * m.f * d);
    if (pq) std::memset(pq, 0, sizeof(float) * m.q * d);
    const bool is_rectified = m.f == 1 && !m.gated;
    if (is_rectified) rectified_rows(m, network, p, {pf, qf, pq, square});
    for (long row = 0; row < rows && !is_rectified; row += kTile) {
      const Place at{network, chunk, p, row, std::min(kTile, rows - row)};
      before(m, at, pre.data());
      after(m, at, pre.data(), {pf, qf, pq, square});
    }
    scale(pf, 1.0f / m.q, m.f * d);
    if (pq) scale(pq, 1.0f / m.f, m.q * d);
  }
  scale(qf, 1.0f / m.p, rows * d);
  scale(square, 1.0f / (m.p * rows), d);
}

// The gradient of the results for one row, 8 channels.
struct Given {
  const float *out, *pf, *qf, *pq, *square;
  float by_q, by_p, by_f, by_all;

  Given(const Mix& m, const MixGradient& g, const Place& at) {
    const long rows = m.q * m.f, d = m.d, at_p = at.network * m.p + at.p;
    out = g.out ? g.out + (at_p * rows + at.row) * d : nullptr;
    pf = g.mean_pf ? g.mean_pf + at_p * m.f * d : nullptr;
    qf = g.mean_qf ? g.mean_qf + (at.network * rows + at.row) * d : nullptr;
    pq = g.mean_pq ? g.mean_pq + at_p * m.q * d : nullptr;
    square = g.square ? g.square + at.network * d : nullptr;
    by_q = 1.0f / m.q, by_p = 1.0f / m.p, by_f = 1.0f / m.f, by_all = 2.0f / (m.p * rows);
  }

  inline vec at(long r, long q, long f, long i, long d, vec value) const {
    vec sum = out ? load(out + r * d + i) : vec{};
    if (pf) sum += by_q * load(pf + f * d + i);
    if (qf) sum += by_p * load(qf + r * d + i);
    if (pq) sum += by_f * load(pq + q * d + i);
    if (square) sum += by_all * load(square + i) * value;
    return sum;
  }
};

// What came before the nonlinearity becomes its gradient; for the plain rectifier the result itself tells the side.
inline void gradient_before(const Mix& m, const MixGradient& g, const Place& at, float* pre) {
  const Given given(m, g, at);
  const long d = m.d, e = m.e;
  const float* out = m.out + ((at.network * m.p + at.p) * m.q * m.f + at.row) * d;
  for (long r = 0; r < at.count; ++r, out += d, pre += e) {
    const long f = m.f == 1 ? 0 : (at.row + r) % m.f, q = m.f == 1 ? 0 : (at.row + r) / m.f;
    for (long i = 0; i < d; i += kLanes) {
      const vec value = load(out + i), sum = given.at(r, q, f, i, d, value);
      if (m.gated) {
        const vec gate = opened(load(pre + d + i));
        store(pre + d + i, sum * load(pre + i) * gate * (1.0f - 0.5f * gate));
        store(pre + i, sum * gate);
      } else {
        store(pre + i, value > 0.0f ? sum : sum * m.slope);
      }
    }
  }
}

// Sums of the gradient over the axes along which the means did not differ.
inline void add_up(const Mix& m, const Place& at, const float* grad, float* pf, float* qf, float* pq) {
  for (long r = 0; r < at.count; ++r, grad += m.e) {
    float* first = pf ? pf + (m.f == 1 ? 0 : (at.row + r) % m.f) * m.e : nullptr;
    float* middle = qf ? qf + (at.row + r) * m.e : nullptr;
    float* last = pq ? pq + (at.row + r) / m.f * m.e : nullptr;
    for (long i = 0; i < m.e; i += kLanes) {
      const vec value = load(grad + i);
      if (first) store(first + i, load(first + i) + value);
      if (middle) store(middle + i, load(middle + i) + value);
      if (last) store(last + i, load(last + i) + value);
    }
  }
}

// Both of these for rows of a matrix where there is a rectifier and no gate.
inline void rectified_gradient(const Mix& m, const MixGradient& g, const Place& at, float* grad, float* pf, float* qf) {
  const Given given(m, g, at);
  const long d = m.d, count = at.count;
  const float slope = m.slope, by_p = given.by_p;
  const float* result = m.out + ((at.network * m.p + at.p) * m.q + at.row) * d;
  for (long i = 0; i < d; i += kLanes) {
    const vec same = given.pf ? given.by_q * load(given.pf + i) : vec{};
    const vec factor = given.square ? given.by_all * load(given.square + i) : vec{};
    vec total{};
    for (long r = 0; r < count; ++r) {
      const long place = r * d + i;
      const vec value = load(result + place);
      vec sum = same + factor * value;
      if (given.out) sum += load(given.out + place);
      if (given.qf) sum += by_p * load(given.qf + place);
      sum = value > 0.0f ? sum : sum * slope;
      store(grad + place, sum);
      total += sum;
      if (qf) store(qf + at.row * d + place, load(qf + at.row * d + place) + sum);
    }
    if (pf) store(pf + i, load(pf + i) + total);
  }
}

void backward(const Mix& m, const MixGradient& g, long network, long chunk, const float* transposed, long padded) {
  const long rows = m.q * m.f, c = m.c, e = m.e, per = (m.p + m.chunks - 1) / m.chunks;
  std::vector<float> grad(kTile * e), wide(g.values ? kTile * padded : 0);
  float* weight = g.weight + (network * m.chunks + chunk) * c * e;
  std::memset(weight, 0, sizeof(float) * c * e);
  float* qf = g.by_qf ? g.by_qf + (network * m.chunks + chunk) * rows * e : nullptr;
  if (qf) std::memset(qf, 0, sizeof(float) * rows * e);
  for (long p = chunk * per; p < std::min<long>(m.p, (chunk + 1) * per); ++p) {
    float* pf = g.by_pf ? g.by_pf + (network * m.p + p) * m.f * e : nullptr;
    float* pq = g.by_pq ? g.by_pq + (network * m.p + p) * m.q * e : nullptr;
    if (pf) std::memset(pf, 0, sizeof(float) * m.f * e);
    if (pq) std::memset(pq, 0, sizeof(float) * m.q * e);
    for (long row = 0; row < rows; row += kTile) {
      const Place at{network, chunk, p, row, std::min(kTile, rows - row)};
      const float* values = m.values + ((network * m.p + p) * rows + row) * c;
      if (m.f == 1 && !m.gated) {
        rectified_gradient(m, g, at, grad.data(), pf, qf);
      } else {
        if (m.gated) before(m, at, grad.data());
        gradient_before(m, g, at, grad.data());
        add_up(m, at, grad.data(), pf, qf, pq);
      }
      product(c, e, at.count, values, 1, c, grad.data(), e, weight, e, weight, e);
      if (!g.values) continue;
      float* to = g.values + ((network * m.p + p) * rows + row) * c;
      if (padded == c) {
        product(at.count, c, e, grad.data(), e, 1, transposed, c, to, c, nullptr, 0);
      } else {
        product(at.count, padded, e, grad.data(), e, 1, transposed, padded, wide.data(), padded, nullptr, 0);
        for (long r = 0; r < at.count; ++r) std::memcpy(to + r * c, wide.data() + r * padded, sizeof(float) * c);
      }
    }
  }
}

}  // namespace

extern "C" {

// D must be a multiple of 16.
void wsrl_mix(const Mix* mix, int64_t threads) {
  const long tasks = mix->num_networks * mix->chunks;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long task = 0; task < tasks; ++task) forward(*mix, task / mix->chunks, task % mix->chunks);
}

void wsrl_mix_gradient(const Mix* mix, const MixGradient* gradient, int64_t threads) {
  const Mix& m = *mix;
  const long tasks = m.num_networks * m.chunks, padded = (m.c + kColumns - 1) / kColumns * kColumns;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long task = 0; task < tasks; ++task) {
    const long network = task / m.chunks;
    std::vector<float> transposed(gradient->values ? m.e * padded : 0);
    const float* weight = m.weight + network * m.weight_step;
    if (gradient->values)
      for (long i = 0; i < m.c; ++i)
        for (long j = 0; j < m.e; ++j) transposed[j * padded + i] = weight[i * m.e + j];
    backward(m, *gradient, network, task % m.chunks, transposed.data(), padded);
  }
}
}
