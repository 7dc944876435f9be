// Chamfer distances between all pairs of two lists of point sets, by comparing every point with every other one.
//
// Letters: N and M point sets, P points of each (a multiple of eight). Coordinates are planes: (N, 3, P).

#include <algorithm>
#include <vector>

#include "vectors.h"

namespace {

constexpr int kPoints = 4;  // points of the first set that are compared with eight of the second at a time

inline vec smaller(vec a, vec b) { return a < b ? a : b; }

// Mean squared distance to the nearest point of the other set, both directions added.
float chamfer(const float* x, const float* y, long num, float* nearest_y) {
  std::fill(nearest_y, nearest_y + num, 1e30f);
  double sum = 0;
  for (long i = 0; i < num; i += kPoints) {
    vec nearest[kPoints];
    for (int k = 0; k < kPoints; ++k) nearest[k] = all(1e30f);
    for (long j = 0; j < num; j += kLanes) {
      const vec y0 = load(y + j), y1 = load(y + num + j), y2 = load(y + 2 * num + j);
      vec best = load(nearest_y + j);
#pragma GCC unroll 4
      for (int k = 0; k < kPoints; ++k) {
        const vec d0 = all(x[i + k]) - y0, d1 = all(x[num + i + k]) - y1, d2 = all(x[2 * num + i + k]) - y2;
        const vec squared = d0 * d0 + d1 * d1 + d2 * d2;
        nearest[k] = smaller(nearest[k], squared);
        best = smaller(best, squared);
      }
      store(nearest_y + j, best);
    }
    for (int k = 0; k < kPoints; ++k) {
      float least = nearest[k][0];
      for (int lane = 1; lane < kLanes; ++lane) least = std::min(least, nearest[k][lane]);
      sum += least;
    }
  }
  for (long j = 0; j < num; ++j) sum += nearest_y[j];
  return static_cast<float>(sum / num);
}

}  // namespace

extern "C" void wsrl_chamfer(const float* x, const float* y, long num_x, long num_y, long num, float* out, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (long i = 0; i < num_x; ++i) {
    std::vector<float> nearest(num);
    for (long j = 0; j < num_y; ++j) out[i * num_y + j] = chamfer(x + i * 3 * num, y + j * 3 * num, num, nearest.data());
  }
}
