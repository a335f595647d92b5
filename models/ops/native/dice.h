// Dice, the activation of DIN, over blocks of rows: forward, its statistics, and its gradient.
//
// The equations stand in models/layers/dice.py, whose names are used here. A row has C channels,
// and a block has few enough rows to stay in a processor's cache.

#ifndef SEQUENCE_CTR_DICE_H_
#define SEQUENCE_CTR_DICE_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "tensorflow/core/framework/tensor.h"

namespace sequence_ctr {

using Vector = std::vector<float>;

inline const float* Values(const tensorflow::Tensor& tensor) { return tensor.flat<float>().data(); }
inline float* Values(tensorflow::Tensor* tensor) { return tensor->flat<float>().data(); }

// Adds what a part has summed up.
inline void AddTo(Vector* sum, const Vector& part) {
  for (size_t c = 0; c < sum->size(); ++c) (*sum)[c] += part[c];
}

// 1 / (1 + exp(-z)) with a relative error of 2e-7. There is no call in it, so that a loop over it
// becomes vector code.
inline float Sigmoid(float z) {
  const float exponent = std::min(std::max(z, -87.0f), 87.0f) * -1.44269504f;  // of 2
  const float whole = std::nearbyint(exponent);
  const float rest = exponent - whole;
  float power = 1.535336188e-4f;
  power = power * rest + 1.339887440e-3f;
  power = power * rest + 9.618437357e-3f;
  power = power * rest + 5.550332548e-2f;
  power = power * rest + 2.402264791e-1f;
  power = power * rest + 6.931472028e-1f;
  power = power * rest + 1.0f;
  const int32_t bits = (static_cast<int32_t>(whole) + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return 1.0f / (1.0f + power * scale);
}

// Mean and sum of squared deviations per channel, of rows that come in blocks. Blocks are merged by
// the formula of Chan, Golub and LeVeque, which loses no digits where the mean is large.
class Moments {
 public:
  explicit Moments(int channels) : mean_(channels), squares_(channels) {}

  void Add(const float* rows, int count) {
    const int channels = mean_.size();
    Moments block(channels);
    float* mean = block.mean_.data();
    float* squares = block.squares_.data();
    for (int i = 0; i < count; ++i) {
      const float* row = rows + int64_t{i} * channels;
#pragma GCC ivdep
      for (int c = 0; c < channels; ++c) mean[c] += row[c];
    }
    for (int c = 0; c < channels; ++c) mean[c] /= count;
    for (int i = 0; i < count; ++i) {
      const float* row = rows + int64_t{i} * channels;
#pragma GCC ivdep
      for (int c = 0; c < channels; ++c) {
        const float deviation = row[c] - mean[c];
        squares[c] += deviation * deviation;
      }
    }
    block.count_ = count;
    Merge(block);
  }

  void Merge(const Moments& other) {
    if (other.count_ == 0) return;
    const double total = count_ + other.count_;
    const float share = other.count_ / total, weight = count_ * other.count_ / total;
    for (size_t c = 0; c < mean_.size(); ++c) {
      const float difference = other.mean_[c] - mean_[c];
      mean_[c] += difference * share;
      squares_[c] += other.squares_[c] + difference * difference * weight;
    }
    count_ = total;
  }

  // Writes the mean and the variance of all rows; 0 if there are none.
  void Write(float* mean, float* variance) const {
    for (size_t c = 0; c < mean_.size(); ++c) {
      mean[c] = mean_[c];
      variance[c] = squares_[c] / std::max(count_, 1.0);
    }
  }

 private:
  Vector mean_, squares_;
  double count_ = 0;
};

// What the gradient of Dice needs of all rows: sums per channel, of x the values and p the gates.
struct DiceSums {
  explicit DiceSums(int channels) : of_alpha(channels), bends(channels), moments(channels) {}

  void Add(const DiceSums& part) {
    AddTo(&of_alpha, part.of_alpha);
    AddTo(&bends, part.bends);
    AddTo(&moments, part.moments);
  }

  Vector of_alpha;  // upstream x (1 - p)
  Vector bends;     // upstream x p (1 - p)
  Vector moments;   // the same times x
};

// f(x) = x (alpha + (1 - alpha) p) with p = sigmoid(x scale - shift), under given statistics.
class Dice {
 public:
  Dice(const float* alpha, const float* mean, const float* variance, int channels, float epsilon)
      : channels_(channels), alpha_(alpha, alpha + channels), mean_(mean, mean + channels),
        open_(channels), scale_(channels), shift_(channels), factor_(channels) {
    for (int c = 0; c < channels; ++c) {
      open_[c] = 1.0f - alpha[c];
      scale_[c] = 1.0f / std::sqrt(variance[c] + epsilon);
      shift_[c] = mean[c] * scale_[c];
      factor_[c] = open_[c] * scale_[c];
    }
  }

  // Writes f(x) of a block.
  void Activate(const float* x, int rows, float* activated) const {
    const float *alpha = alpha_.data(), *open = open_.data();
    const float *scale = scale_.data(), *shift = shift_.data();
    for (int i = 0; i < rows; ++i) {
#pragma GCC ivdep
      for (int c = 0; c < channels_; ++c) {
        const float gate = Sigmoid(x[c] * scale[c] - shift[c]);
        activated[c] = x[c] * (gate * open[c] + alpha[c]);
      }
      x += channels_, activated += channels_;
    }
  }

  // Adds a block to the sums; writes f(x) and the gradient of x under fixed statistics.
  void Backward(const float* x, const float* upstream, int rows, DiceSums* sums, float* activated,
                float* direct) const {
    const float *alpha = alpha_.data(), *open = open_.data(), *factor = factor_.data();
    const float *scale = scale_.data(), *shift = shift_.data();
    float* of_alpha = sums->of_alpha.data();
    float* bends = sums->bends.data();
    float* moments = sums->moments.data();
    for (int i = 0; i < rows; ++i) {
#pragma GCC ivdep
      for (int c = 0; c < channels_; ++c) {
        const float gate = Sigmoid(x[c] * scale[c] - shift[c]);
        const float slope = gate * open[c] + alpha[c];
        const float opened = upstream[c] * x[c], gated = opened * gate;
        const float bend = gated - gated * gate;
        of_alpha[c] += opened - gated;
        bends[c] += bend;
        moments[c] += bend * x[c];
        activated[c] = x[c] * slope;
        direct[c] = upstream[c] * slope + bend * factor[c];
      }
      x += channels_, upstream += channels_, activated += channels_, direct += channels_;
    }
  }

  // What goes through the statistics: of_x = direct - (x of_variance + offset).
  struct ThroughStatistics {
    Vector of_variance, offset;
  };

  ThroughStatistics Through(const DiceSums& sums, int64_t count) const {
    ThroughStatistics through{Vector(channels_), Vector(channels_)};
    for (int c = 0; c < channels_; ++c) {
      const float of_mean = sums.bends[c] * factor_[c] / count;
      const float centred = (sums.moments[c] - mean_[c] * sums.bends[c]) * factor_[c];
      through.of_variance[c] = centred * scale_[c] * scale_[c] / count;
      through.offset[c] = of_mean - mean_[c] * through.of_variance[c];
    }
    return through;
  }

  // Writes the whole gradient of a block: into a buffer, as writing to memory takes longer.
  void Complete(const ThroughStatistics& through, const float* x, const float* direct, int rows,
                float* of_x) const {
    const float* of_variance = through.of_variance.data();
    const float* offset = through.offset.data();
    for (int i = 0; i < rows; ++i) {
#pragma GCC ivdep
      for (int c = 0; c < channels_; ++c) {
        of_x[c] = direct[c] - (x[c] * of_variance[c] + offset[c]);
      }
      x += channels_, direct += channels_, of_x += channels_;
    }
  }

 private:
  int channels_;
  Vector alpha_, mean_, open_, scale_, shift_, factor_;
};

}  // namespace sequence_ctr

#endif  // SEQUENCE_CTR_DICE_H_
