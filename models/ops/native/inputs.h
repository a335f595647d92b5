// What both operations of the local activation unit read: their inputs, as matrices, with checks.

#ifndef SEQUENCE_CTR_INPUTS_H_
#define SEQUENCE_CTR_INPUTS_H_

#include <cstdint>
#include <vector>

#include "dice.h"
#include "pairs.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace sequence_ctr {

using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::errors::InvalidArgument;

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using MatrixView = Eigen::Map<Matrix>;
using ConstMatrixView = Eigen::Map<const Matrix>;

inline ConstMatrixView AsMatrix(const Tensor& tensor) {
  return ConstMatrixView(Values(tensor), tensor.dim_size(0), tensor.dim_size(1));
}

// Zeros for each part to add to.
inline std::vector<Matrix> ZerosOfParts(int64_t rows, int64_t columns) {
  return std::vector<Matrix>(kParts, Matrix::Zero(rows, columns));
}

// Writes the sum of all parts, in their order.
inline void WriteSum(const std::vector<Matrix>& parts, Tensor* sum) {
  MatrixView view(Values(sum), parts[0].rows(), parts[0].cols());
  view = parts[0];
  for (size_t part = 1; part < parts.size(); ++part) view += parts[part];
}

inline DiceSums Sum(const std::vector<DiceSums>& parts) {
  DiceSums all = parts[0];
  for (size_t part = 1; part < parts.size(); ++part) all.Add(parts[part]);
  return all;
}

inline void WriteMoments(const std::vector<Moments>& parts, Tensor* mean, Tensor* variance) {
  Moments all = parts[0];
  for (size_t part = 1; part < parts.size(); ++part) all.Merge(parts[part]);
  all.Write(Values(mean), Values(variance));
}

// Writes q * k of the pairs of a block.
inline void Multiply(const Pairs& pairs, int64_t first, int count, const float* queries,
                     const float* events, int width, float* products) {
  for (int i = 0; i < count; ++i, products += width) {
    const Pair& pair = pairs[first + i];
    const float* query = queries + int64_t{pair.candidate} * width;
    const float* event = events + int64_t{pair.event} * width;
#pragma GCC ivdep
    for (int d = 0; d < width; ++d) products[d] = query[d] * event[d];
  }
}

// Inputs that both operations have, first and in this order.
enum Input {
  kQueries,       // q [B, N, D]
  kEvents,        // k [B, L, D]
  kMask,          // [B, N, L]
  kProductKernel, // W4 [D, A]
  kAlpha1,        // [A]
  kKernel2,       // [A, C]
  kAlpha2,        // [C]
  kScorer,        // [C]
  kOthers,
};
constexpr const char* kInputNames[] = {"queries", "events", "mask",   "product_kernel",
                                       "alpha1",  "kernel2", "alpha2", "scorer"};

// Checks the shape of an input.
inline tensorflow::Status Check(OpKernelContext* context, int input, const char* name,
                         const TensorShape& expected) {
  const TensorShape& found = context->input(input).shape();
  if (found == expected) return tensorflow::Status();
  return InvalidArgument("Expected ", name, " of shape ", expected.DebugString(), ", found ",
                         found.DebugString(), ".");
}

struct Sizes {
  int64_t B = 0, N = 0, L = 0, D = 0, A = 0, C = 0;
};

// Reads the sizes from the shapes of the common inputs and checks that these agree.
inline tensorflow::Status ReadSizes(OpKernelContext* context, Sizes* sizes) {
  constexpr int kRanks[] = {3, 3, 3, 2, 1, 2, 1, 1};
  for (int i = 0; i < kOthers; ++i) {
    const TensorShape& found = context->input(i).shape();
    if (found.dims() != kRanks[i]) {
      return InvalidArgument("Expected ", kInputNames[i], " of rank ", kRanks[i], ", found shape ",
                             found.DebugString(), ".");
    }
  }
  const auto size = [&](Input input, int axis) { return context->input(input).dim_size(axis); };
  *sizes = {size(kQueries, 0), size(kQueries, 1),       size(kEvents, 1),
            size(kQueries, 2), size(kProductKernel, 1), size(kKernel2, 1)};
  const auto [B, N, L, D, A, C] = *sizes;
  if (context->input(kMask).NumElements() > INT32_MAX) {
    return InvalidArgument("Expected fewer than 2^31 pairs of a candidate and an event.");
  }
  const TensorShape expected[] = {{B, N, D}, {B, L, D}, {B, N, L}, {D, A}, {A}, {A, C}, {C}, {C}};
  for (int i = 0; i < kOthers; ++i) {
    TF_RETURN_IF_ERROR(Check(context, i, kInputNames[i], expected[i]));
  }
  return tensorflow::Status();
}

}  // namespace sequence_ctr

#endif  // SEQUENCE_CTR_INPUTS_H_
