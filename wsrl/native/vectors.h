// Eight floats at a time: a matrix product in registers, sines, exponentials. GCC's vector extensions, so that the same lines
// serve every processor. A kernel that can do with any number of lanes defines WSRL_WIDE first: sixteen where the processor
// has AVX-512, whose registers hold twice as many rows as well.
//
// Letters: K summed index, M rows, N columns. Matrices are row-major; rows are padded to `stride(n)` floats, which keeps
// vector loads whole and columns out of one cache set.

#pragma once

#include <cstdint>

namespace {

#if defined(WSRL_WIDE) && defined(__AVX512F__)
#define WSRL_SIXTEEN
constexpr int kLanes = 16, kRows = 12;
#else
constexpr int kLanes = 8, kRows = 6;
#endif
constexpr int kColumns = 2 * kLanes;
typedef float vec __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

inline vec load(const float* from) { return *reinterpret_cast<const vec*>(from); }
inline void store(float* to, vec value) { *reinterpret_cast<vec*>(to) = value; }
inline void stream(float* to, vec value) {  // past the cache, to an aligned place
#if defined(__AVX__) && !defined(WSRL_SIXTEEN)
  typedef float native __attribute__((vector_size(32)));
  __builtin_ia32_movntps256(to, (native)value);
#else
  store(to, value);
#endif
}
inline vec all(float v) { return v - vec{}; }
inline long stride(long n) { return (n + kColumns - 1) / kColumns * kColumns + 16; }

// C = A B + start for R rows and 16 columns of C, held in registers. A's element (i, k) is a[i * row + k * column].
template <int R>
inline void block(long num_k, const float* a, long row, long column, const float* b, long ldb, float* c, long ldc,
                  const float* start, long lds) {
  vec sum[R][2];
#pragma GCC unroll 12
  for (int i = 0; i < R; ++i) {
    sum[i][0] = start ? load(start + i * lds) : vec{};
    sum[i][1] = start ? load(start + i * lds + kLanes) : vec{};
  }
  for (long k = 0; k < num_k; ++k) {
    const vec left = load(b + k * ldb), right = load(b + k * ldb + kLanes);
#pragma GCC unroll 12
    for (int i = 0; i < R; ++i) {
      const vec factor = all(a[i * row + k * column]);
      sum[i][0] += factor * left;
      sum[i][1] += factor * right;
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < R; ++i) {
    store(c + i * ldc, sum[i][0]);
    store(c + i * ldc + kLanes, sum[i][1]);
  }
}

// The same for the last rows, fewer than a block has.
template <int R>
inline void rest(long rows, long num_k, const float* a, long row, long column, const float* b, long ldb, float* c, long ldc,
                 const float* start, long lds) {
  if (rows == R) block<R>(num_k, a, row, column, b, ldb, c, ldc, start, lds);
  else if constexpr (R > 1) rest<R - 1>(rows, num_k, a, row, column, b, ldb, c, ldc, start, lds);
}

// C (M, N) = A (M, K) B (K, N) + start; start is C itself, one row for all (lds 0), or null for zero. What is to be done with
// a block of C while it is near, `after` does: it is told the block's first row, its number of rows and its first column.
template <class After>
inline void product(long num_m, long num_n, long num_k, const float* a, long row, long column, const float* b, long ldb,
                    float* c, long ldc, const float* start, long lds, After after) {
  for (long n = 0; n < num_n; n += kColumns) {
    const float* begin = start ? start + n : nullptr;
    long m = 0;
    for (; m + kRows <= num_m; m += kRows) {
      block<kRows>(num_k, a + m * row, row, column, b + n, ldb, c + m * ldc + n, ldc, begin ? begin + m * lds : begin, lds);
      after(m, kRows, n);
    }
    if (m == num_m) continue;
    rest<kRows - 1>(num_m - m, num_k, a + m * row, row, column, b + n, ldb, c + m * ldc + n, ldc,
                    begin ? begin + m * lds : begin, lds);
    after(m, num_m - m, n);
  }
}

inline void product(long num_m, long num_n, long num_k, const float* a, long row, long column, const float* b, long ldb,
                    float* c, long ldc, const float* start, long lds) {
  product(num_m, num_n, num_k, a, row, column, b, ldb, c, ldc, start, lds, [](long, long, long) {});
}

// sin and cos together: x - k pi is reduced in three steps, then both Taylor series on [-pi/2, pi/2] (error below 1e-7).
inline void sin_cos(vec x, vec& sine, vec& cosine) {
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, which is then in the low bits
  const vec shifted = x * 0.318309886183790672f + magic;
  const vec k = shifted - magic;
  vec r = x - k * 3.140625f;
  r = r - k * 9.67502593994140625e-4f;
  r = r - k * 1.50995798e-7f;
  const ivec sign = reinterpret_cast<const ivec&>(shifted) << 31;
  const vec s = r * r;
  vec p = all(-2.50521084e-8f);
  p = p * s + 2.75573192e-6f;
  p = p * s - 1.98412698e-4f;
  p = p * s + 8.33333333e-3f;
  p = p * s - 1.66666667e-1f;
  p = r + r * (s * p);
  vec q = all(2.08767570e-9f);
  q = q * s - 2.75573192e-7f;
  q = q * s + 2.48015873e-5f;
  q = q * s - 1.38888889e-3f;
  q = q * s + 4.16666667e-2f;
  q = q * s - 0.5f;
  q = q * s + 1.0f;
  const ivec ps = reinterpret_cast<const ivec&>(p) ^ sign, qs = reinterpret_cast<const ivec&>(q) ^ sign;
  sine = reinterpret_cast<const vec&>(ps);
  cosine = reinterpret_cast<const vec&>(qs);
}

// exp by 2^k times a series on [-ln2/2, ln2/2]; arguments are held inside the range of floats.
inline vec exponential(vec x) {
  x = x > 87.0f ? all(87.0f) : x;
  x = x < -87.0f ? all(-87.0f) : x;
  const float magic = 12582912.0f;
  const vec shifted = x * 1.44269504088896341f + magic;
  const vec k = shifted - magic;
  const vec r = (x - k * 0.693359375f) + k * 2.12194440e-4f;
  vec p = all(1.98412698e-4f);
  p = p * r + 1.38888889e-3f;
  p = p * r + 8.33333333e-3f;
  p = p * r + 4.16666667e-2f;
  p = p * r + 1.66666667e-1f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const ivec bits = reinterpret_cast<const ivec&>(p) + (reinterpret_cast<const ivec&>(shifted) << 23);
  return reinterpret_cast<const vec&>(bits);
}

inline vec reciprocal(vec v) {
#ifdef WSRL_SIXTEEN  // an estimate and a step of Newton's: a division takes as long as all the rest of a sigmoid
  typedef float native __attribute__((vector_size(64)));
  const vec estimate = (vec)__builtin_ia32_rcp14ps512_mask((native)v, (native)v, 0xffff);
  return estimate * (2.0f - v * estimate);
#else
  return 1.0f / v;
#endif
}

inline float total(vec v) {
  float sums[kLanes];
  store(sums, v);
  for (int count = kLanes / 2; count; count /= 2)
    for (int i = 0; i < count; ++i) sums[i] += sums[i + count];
  return sums[0];
}

}  // namespace
