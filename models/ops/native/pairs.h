// Which pairs of a candidate and an event exist, and how they are dealt out to threads.

#ifndef SEQUENCE_CTR_PAIRS_H_
#define SEQUENCE_CTR_PAIRS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/util/work_sharder.h"

namespace sequence_ctr {

// Work is dealt out in parts that do not depend on the number of threads, and sums over parts are
// formed in their order: so any number of threads gives the same bits.
constexpr int kParts = 16;
constexpr int kPairsOfBlock = 128;
constexpr int64_t kCyclesOfPart = 1 << 21;

struct Pair {
  int32_t candidate;  // row of [B N, ...]
  int32_t event;      // row of [B L, ...]
  int32_t place;      // in [B N L]
};

class Pairs {
 public:
  explicit Pairs(const tensorflow::Tensor& mask_BNL) {
    const int requests = mask_BNL.dim_size(0);
    const int candidates = mask_BNL.dim_size(1), events = mask_BNL.dim_size(2);
    pairs_.reserve(mask_BNL.NumElements());
    const bool* exists = mask_BNL.flat<bool>().data();
    std::vector<int64_t> first_of_request = {0};
    int32_t place = 0;
    for (int b = 0; b < requests; ++b) {
      for (int n = 0; n < candidates; ++n) {
        for (int l = 0; l < events; ++l, ++place) {
          if (exists[place]) pairs_.push_back({b * candidates + n, b * events + l, place});
        }
      }
      first_of_request.push_back(count());
    }
    // A request is in one part, so that no two threads add to the gradient of one event.
    int b = 0;
    for (int part = 0; part < kParts; ++part) {
      begin_.push_back(first_of_request[b]);
      const int64_t end = count() * (part + 1) / kParts;
      while (b < requests && first_of_request[b + 1] <= end) ++b;
    }
    begin_.push_back(count());
  }

  int64_t count() const { return pairs_.size(); }
  const Pair& operator[](int64_t i) const { return pairs_[i]; }

  // Calls f(first pair, number of pairs) for each block of a part.
  template <typename F>
  void ForBlocks(int part, F f) const {
    for (int64_t first = begin_[part]; first < begin_[part + 1]; first += kPairsOfBlock) {
      f(first, static_cast<int>(std::min<int64_t>(kPairsOfBlock, begin_[part + 1] - first)));
    }
  }

 private:
  std::vector<Pair> pairs_;  // by request, candidate, event
  std::vector<int64_t> begin_;
};

// Calls f(part) for all parts, on the threads that TensorFlow has for one operation.
template <typename F>
void ForParts(tensorflow::OpKernelContext* context, F f) {
  const auto* workers = context->device()->tensorflow_cpu_worker_threads();
  tensorflow::Shard(workers->num_threads, workers->workers, kParts, kCyclesOfPart,
                    [&f](int64_t begin, int64_t end) {
                      for (int64_t part = begin; part < end; ++part) f(static_cast<int>(part));
                    });
}

}  // namespace sequence_ctr

#endif  // SEQUENCE_CTR_PAIRS_H_
