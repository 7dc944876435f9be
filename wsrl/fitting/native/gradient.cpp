// The gradient of every field's mean loss, one field per thread, a tile of points at a time: activations never
// leave the core's cache, and no result depends on the other fields of the batch.
//
// Letters: T points of a tile, K summed index, M rows, N columns. All arrays are row-major and point-major; rows are
// padded to `stride(n)` floats with zeros, which keeps vector loads whole and columns out of one cache set.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#define WSRL_WIDE
#include "vectors.h"

namespace {

enum Activation { kLeakyRelu = 0, kSilu = 1, kSine = 2 };
enum Loss { kSquared = 0, kClamped = 1, kLogistic = 2 };
enum Form { kExp = 0, kOnePlus = 1, kProduct = 2, kAdd = 3 };

// A row of values becomes its activation, slopes the derivative there.
inline void activate(int kind, float omega, float* values, float* slopes, long count) {
  for (long i = 0; i < count; i += kLanes) {
    const vec z = load(values + i);
    vec value, slope;
    if (kind == kSine) {
      sin_cos(z * omega, value, slope);
      slope *= omega;
    } else if (kind == kSilu) {
      const vec gate = reciprocal(1.0f + exponential(-z));
      value = z * gate;
      slope = gate + value * (1.0f - gate);
    } else {
      slope = z > 0.0f ? all(1.0f) : all(0.2f);
      value = z * slope;
    }
    store(values + i, value);
    store(slopes + i, slope);
  }
}

}  // namespace

extern "C" {

struct Network {
  int64_t num_layers, activation, residual;
  double omega;
  const int64_t* sizes;  // num_layers + 1
  int64_t loss;
  double low, high;      // ends of the range that the clamped loss knows
};

// What is null is not there; a step is the distance of two fields' tensors, 0 where they share one.
struct Tensor {
  const float* value;
  float* grad;
  int64_t step;
};

struct Layer {
  Tensor weight, bias, down, up;  // (out, in), (out), (rank, in), (out, rank)
  int64_t rank, form;             // rank 0: the weight itself
};

struct Batch {
  int64_t num_fields, num_points, feature_stride, feature_step;
  const float *features, *targets;   // (P, feature_stride), (P, C)
  int64_t target_step;
  float* losses;                     // one per field
  float* values;                     // (P, C) of the first field; if given, nothing but values is computed
  const float* weights;              // (P) of the first field, factors on the losses; null where all are 1
  int64_t weight_step;
  const int32_t* drawn;              // (P) of the first field, rows of features and targets; null: all, in their order
  int64_t drawn_step;
};
}

namespace {

// What one thread needs for one field.
class Field {
 public:
  Field(const Network& net, const Layer* layers, const Batch& batch)
      : net_(net), layers_(layers), batch_(batch), depth_(net.num_layers) {
    long widest = 0, per_point = 0;
    for (long i = 0; i <= depth_; ++i) widest = std::max(widest, stride(net.sizes[i]));
    for (long i = 1; i <= depth_; ++i) per_point += 2 * stride(net.sizes[i]);
    per_point += 2 * widest;
    // A tile whose activations stay in the second-level cache, in whole blocks of rows; not so small that the weights'
    // own traffic counts.
    tile_ = std::min<long>(std::max<long>(kCacheFloats / per_point / kRows, 10) * kRows, 264);
    const long num_tiles = (batch.num_points + tile_ - 1) / tile_;  // about equal ones
    tile_ = ((batch.num_points + num_tiles - 1) / num_tiles + kRows - 1) / kRows * kRows;
    long need = 3 * tile_ * widest + (batch.drawn ? tile_ * batch.feature_stride : 0), largest = 0;
    for (long i = 0; i < depth_; ++i) {
      const long in = net.sizes[i], out = net.sizes[i + 1];
      largest = std::max(largest, out * stride(in));
      need += in * stride(out) + out * stride(in) + 2 * tile_ * stride(out) + std::min(in, out) * stride(std::max(in, out));
      need += 2 * stride(out) + 2 * layers[i].rank * stride(in);
    }
    float* next = storage(need + largest + kColumns);
    auto take = [&next](long count) { float* here = next; next += (count + 15) / 16 * 16; return here; };
    grad_ = take(tile_ * widest), spare_ = take(tile_ * widest), skipped_ = take(tile_ * widest), turned_ = take(largest);
    gathered_ = take(batch.drawn ? tile_ * batch.feature_stride : 0);
    for (long i = 0; i < depth_; ++i) {
      const long in = net.sizes[i], out = net.sizes[i + 1];
      across_.push_back(take(in * stride(out))), straight_.push_back(take(out * stride(in)));
      values_.push_back(take(tile_ * stride(out))), slopes_.push_back(take(tile_ * stride(out)));
      weight_grads_.push_back(take(std::min(in, out) * stride(std::max(in, out))));
      biases_.push_back(take(stride(out))), bias_grads_.push_back(take(stride(out)));
      downs_.push_back(take(layers[i].rank * stride(in))), down_grads_.push_back(take(layers[i].rank * stride(in)));
    }
  }

  void run(long field) {
    for (long i = 0; i < depth_; ++i) prepare(i, field);
    const float* features = batch_.features + field * batch_.feature_step;
    const float* target = batch_.values ? nullptr : batch_.targets + field * batch_.target_step;
    const float* weights = batch_.weights ? batch_.weights + field * batch_.weight_step : nullptr;
    const int32_t* drawn = batch_.drawn ? batch_.drawn + field * batch_.drawn_step : nullptr;
    const long channels = net_.sizes[depth_];
    double loss = 0;
    for (long first = 0; first < batch_.num_points; first += tile_) {
      const long rows = std::min(tile_, batch_.num_points - first);
      const float* input = drawn ? gather(rows, features, drawn + first) : features + first * batch_.feature_stride;
      forward(rows, input);
      if (batch_.values) {
        write(rows, batch_.values + (field * batch_.num_points + first) * channels);
        continue;
      }
      const float* part = drawn ? target : target + first * channels;
      loss += losses(rows, part, weights ? weights + first : nullptr, drawn ? drawn + first : nullptr);
      backward(rows, input);
    }
    if (batch_.values) return;
    batch_.losses[field] = static_cast<float>(loss / (batch_.num_points * channels));
    for (long i = 0; i < depth_; ++i) finish(i, field);
  }

 private:
  static constexpr long kCacheFloats = 40 * 1024;

  bool is_wide(long i) const { return net_.sizes[i] >= net_.sizes[i + 1]; }
  bool is_residual(long i) const { return net_.residual && i > 0 && i < depth_ - 1 && net_.sizes[i] == net_.sizes[i + 1]; }

  // Zeroed memory that a thread keeps for networks of one shape: the padding stays zero from call to call.
  float* storage(long need) {
    static thread_local std::vector<float> memory;
    static thread_local std::vector<int64_t> shape;
    std::vector<int64_t> asked(net_.sizes, net_.sizes + depth_ + 1);
    for (long i = 0; i < depth_; ++i) asked.push_back(layers_[i].rank);
    asked.push_back(tile_), asked.push_back(need);
    if (asked != shape) memory.assign(need + 15, 0.0f), shape = asked;
    const auto begin = reinterpret_cast<uintptr_t>(memory.data());
    return memory.data() + (64 - begin % 64) % 64 / sizeof(float);  // a vector of sixteen then never lies in two cache lines
  }

  bool is_trained(long i) const { return layers_[i].weight.grad || layers_[i].up.grad; }

  void prepare(long i, long field) {
    const Layer& layer = layers_[i];
    const long in = net_.sizes[i], out = net_.sizes[i + 1];
    const float* weight = layer.weight.value + field * layer.weight.step;
    for (long r = 0; r < layer.rank; ++r)
      std::memcpy(downs_[i] + r * stride(in), layer.down.value + field * layer.down.step + r * in, in * sizeof(float));
    for (long m = 0; m < out; ++m) {
      std::memcpy(straight_[i] + m * stride(in), weight + m * in, in * sizeof(float));
      if (layer.rank) adapt(i, m, layer.up.value + field * layer.up.step + m * layer.rank, straight_[i] + m * stride(in));
    }
    for (long k0 = 0; k0 < in; k0 += kColumns)
      for (long m = 0; m < out; ++m)
        for (long k = k0; k < std::min(k0 + kColumns, in); ++k)
          across_[i][k * stride(out) + m] = straight_[i][m * stride(in) + k];
    std::memcpy(biases_[i], layer.bias.value + field * layer.bias.step, out * sizeof(float));
    if (is_trained(i)) std::fill_n(weight_grads_[i], std::min(in, out) * stride(std::max(in, out)), 0.0f);
    std::fill_n(bias_grads_[i], stride(out), 0.0f);
  }

  vec factor(long i, const float* up, long k) const {
    vec sum{};
    for (long r = 0; r < layers_[i].rank; ++r) sum += all(up[r]) * load(downs_[i] + r * stride(net_.sizes[i]) + k);
    return sum;
  }

  // One row of the frozen weight becomes that of the adapted one.
  void adapt(long i, long m, const float* up, float* row) const {
    for (long k = 0; k < net_.sizes[i]; k += kLanes) {
      const vec weight = load(row + k), change = factor(i, up, k);
      switch (layers_[i].form) {
        case kExp: store(row + k, weight * exponential(change)); break;
        case kOnePlus: store(row + k, weight + weight * change); break;
        case kProduct: store(row + k, weight * change); break;
        default: store(row + k, weight + change);
      }
    }
    std::fill(row + net_.sizes[i], row + stride(net_.sizes[i]), 0.0f);
  }

  void forward(long rows, const float* features) {
    const float* input = features;
    long ld = batch_.feature_stride;
    for (long i = 0; i < depth_; ++i) {
      const long in = net_.sizes[i], out = net_.sizes[i + 1];
      const auto activated = [this, i, ldo = stride(out)](long m, long num, long n) {
        if (i == depth_ - 1) return;
        const float omega = i == 0 ? net_.omega : 1.0;
        for (long at = m * ldo + n; num > 0; --num, at += ldo)
          activate(net_.activation, omega, values_[i] + at, slopes_[i] + at, kColumns);
      };
      if (out < kColumns / 2) {
        dots(rows, i, input, ld);
        activated(0, rows, 0);
      } else {
        product(rows, out, in, input, ld, 1, across_[i], stride(out), values_[i], stride(out), biases_[i], 0, activated);
      }
      if (is_residual(i)) mix(rows * stride(out), values_[i], input);
      input = values_[i], ld = stride(out);
    }
  }

  // The few channels of an output layer: one dot product each, along the padded rows.
  void dots(long rows, long i, const float* input, long ld) {
    const long in = net_.sizes[i], out = net_.sizes[i + 1];
    for (long p = 0; p < rows; ++p)
      for (long m = 0; m < out; ++m) {
        vec even{}, odd{};
        const float *x = input + p * ld, *w = straight_[i] + m * stride(in);
        for (long k = 0; k < in; k += kColumns) {
          even += load(x + k) * load(w + k);
          odd += load(x + k + kLanes) * load(w + k + kLanes);
        }
        values_[i][p * stride(out) + m] = total(even + odd) + biases_[i][m];
      }
  }

  static void mix(long count, float* values, const float* input) {
    for (long j = 0; j < count; j += kLanes) store(values + j, (load(values + j) + load(input + j)) * kHalf);
  }

  void write(long rows, float* to) const {
    const long channels = net_.sizes[depth_];
    for (long p = 0; p < rows; ++p)
      std::memcpy(to + p * channels, values_[depth_ - 1] + p * stride(channels), channels * sizeof(float));
  }

  // The features of some points one behind the other.
  const float* gather(long rows, const float* features, const int32_t* drawn) {
    const long ld = batch_.feature_stride;
    for (long p = 0; p < rows; ++p) std::memcpy(gathered_ + p * ld, features + drawn[p] * ld, ld * sizeof(float));
    return gathered_;
  }

  // Sum of the tile's losses; the gradient of the mean goes to grad_.
  double losses(long rows, const float* target, const float* weights, const int32_t* drawn) {
    const long channels = net_.sizes[depth_], ld = stride(channels);
    const float scale = 1.0f / (batch_.num_points * channels);
    double sum = 0;
    for (long p = 0; p < rows; ++p)
      for (long c = 0; c < channels; ++c) {
        float slope;
        const float weight = weights ? weights[p] : 1.0f, wanted = target[(drawn ? drawn[p] : p) * channels + c];
        sum += double(weight) * loss(values_[depth_ - 1][p * ld + c], wanted, slope);
        grad_[p * ld + c] = slope * (weight * scale);
      }
    for (long p = 0; p < rows; ++p) std::fill(grad_ + p * ld + channels, grad_ + (p + 1) * ld, 0.0f);
    return sum;
  }

  // The loss of one value and its slope there: wsrl/fitting/loss.py.
  double loss(float found, float target, float& slope) const {
    if (net_.loss == kLogistic) {
      const double decay = std::exp(-std::abs(double(found))), outside = 1.0 - target;
      slope = static_cast<float>((found > 0 ? 1.0 : decay) / (1.0 + decay) - outside);
      return std::max(double(found), 0.0) + std::log1p(decay) - outside * found;
    }
    float wrong = found - target;
    if (net_.loss == kClamped) {
      const bool above = target >= static_cast<float>(net_.high) && wrong > 0;
      const bool below = target <= static_cast<float>(net_.low) && wrong < 0;
      if (above || below) wrong = 0;
    }
    slope = 2 * wrong;
    return double(wrong) * wrong;
  }

  // grad_ holds the gradient of layer i's output before its activation; it walks down to layer 0.
  void backward(long rows, const float* features) {
    for (long i = depth_ - 1; i >= 0; --i) {
      const long in = net_.sizes[i], out = net_.sizes[i + 1], ldo = stride(out), ldi = stride(in);
      const float* input = i ? values_[i - 1] : features;
      const long ld = i ? ldi : batch_.feature_stride;
      if (is_trained(i)) {
        float* sum = weight_grads_[i];
        if (is_wide(i)) product(out, in, rows, grad_, 1, ldo, input, ld, sum, ldi, sum, ldi);
        else product(in, out, rows, input, 1, ld, grad_, ldo, sum, ldo, sum, ldo);
      }
      if (layers_[i].bias.grad)
        for (long p = 0; p < rows; ++p)
          for (long m = 0; m < out; m += kLanes) store(bias_grads_[i] + m, load(bias_grads_[i] + m) + load(grad_ + p * ldo + m));
      if (i == 0) return;
      // The residual path of layer i carries its own gradient past it, and that of the layer below begins.
      const float* skipped = is_residual(i) ? skipped_ : nullptr;
      const bool passes = is_residual(i - 1);
      const auto through = [this, i, ldi, passes](long m, long num, long n) {  // the activation
        const float factor = passes ? kHalf : 1.0f;
        for (long at = m * ldi + n; num > 0; --num, at += ldi)
          for (long j = at; j < at + kColumns; j += kLanes) {
            const vec down = load(spare_ + j) * factor;
            store(spare_ + j, down * load(slopes_[i - 1] + j));
            if (passes) store(skipped_ + j, down);
          }
      };
      product(rows, in, out, grad_, ldo, 1, straight_[i], ldi, spare_, ldi, skipped, ldi, through);
      std::swap(grad_, spare_);
    }
  }

  void finish(long i, long field) {
    const Layer& layer = layers_[i];
    const long in = net_.sizes[i], out = net_.sizes[i + 1];
    if (layer.bias.grad)
      std::memcpy(layer.bias.grad + field * layer.bias.step, bias_grads_[i], out * sizeof(float));
    if (!is_trained(i)) return;
    float* rows = is_wide(i) ? weight_grads_[i] : turned_;
    if (!is_wide(i))
      for (long m = 0; m < out; ++m)
        for (long k = 0; k < in; ++k) rows[m * stride(in) + k] = weight_grads_[i][k * stride(out) + m];
    if (layer.rank) {
      split(i, field, rows);
    } else {
      float* to = layer.weight.grad + field * layer.weight.step;
      for (long m = 0; m < out; ++m) std::memcpy(to + m * in, rows + m * stride(in), in * sizeof(float));
    }
  }

  // The gradient of the adapted weight, (out, stride(in)), becomes that of the two factors.
  void split(long i, long field, const float* rows) {
    const Layer& layer = layers_[i];
    const long in = net_.sizes[i], out = net_.sizes[i + 1], ld = stride(in), rank = layer.rank;
    std::fill_n(down_grads_[i], rank * ld, 0.0f);
    for (long m = 0; m < out; ++m) {
      const float* up = layer.up.value + field * layer.up.step + m * rank;
      float* up_grad = layer.up.grad + field * layer.up.step + m * rank;
      float* change = spare_;
      for (long k = 0; k < in; k += kLanes) {
        vec grad = load(rows + m * ld + k);
        if (layer.form == kExp) grad *= load(straight_[i] + m * ld + k);
        else if (layer.form != kAdd) grad *= frozen(layer, m, in, k);
        store(change + k, grad);
      }
      for (long r = 0; r < rank; ++r) {
        vec sum{};
        for (long k = 0; k < in; k += kLanes) {
          const vec grad = load(change + k);
          sum += grad * load(downs_[i] + r * ld + k);
          store(down_grads_[i] + r * ld + k, load(down_grads_[i] + r * ld + k) + all(up[r]) * grad);
        }
        up_grad[r] = total(sum);
      }
    }
    for (long r = 0; r < rank; ++r)
      std::memcpy(layer.down.grad + field * layer.down.step + r * in, down_grads_[i] + r * ld, in * sizeof(float));
  }

  // A vector of frozen weights of a row, zeros beyond its end.
  static vec frozen(const Layer& layer, long m, long in, long k) {
    if (k + kLanes <= in) return load(layer.weight.value + m * in + k);
    vec rest{};
    for (long j = k; j < in; ++j) rest[j - k] = layer.weight.value[m * in + j];
    return rest;
  }

  static constexpr float kHalf = 0.70710678118654752f;
  const Network& net_;
  const Layer* const layers_;
  const Batch& batch_;
  const long depth_;
  long tile_;
  float *grad_, *spare_, *skipped_, *turned_, *gathered_;
  std::vector<float*> across_, straight_, values_, slopes_, weight_grads_, biases_, bias_grads_, downs_, down_grads_;
};

}  // namespace

namespace {

// Numbers too small for a float's full precision count as zero while one of these lives, in its thread: they change no
// result that can be seen, and a product with one takes a processor a hundred times longer.
class WithoutSubnormals {
 public:
#if defined(__SSE__)
  WithoutSubnormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }  // flush to zero, denormals are zero
  ~WithoutSubnormals() { _mm_setcsr(before_); }

 private:
  const unsigned before_;
#endif
};

}  // namespace

extern "C" int wsrl_gradients(const Network* net, const Layer* layers, const Batch* batch, int64_t num_threads) {
  int failed = 0;
#pragma omp parallel num_threads(num_threads)
  {
    const WithoutSubnormals fast;
    try {
      Field field(*net, layers, *batch);
#pragma omp for schedule(dynamic) nowait
      for (long n = 0; n < batch->num_fields; ++n) field.run(n);
    } catch (const std::bad_alloc&) {
#pragma omp atomic write
      failed = 1;
    }
  }
  return failed;
}
