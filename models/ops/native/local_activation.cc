// The local activation unit of DIN with two layers and Dice, in training, as one operation.
//
// TensorFlow's own operations pass some forty times over tensors with a row per pair of a candidate
// and an event, which are too large for a processor's cache. Here a block of pairs goes through all
// of a layer at once: three passes forward and three backward, because the statistics of Dice cover
// the whole batch. Only pairs that exist are rows.
//
// The equations stand in models/layers/attention/local_activation.py, which is the reference.
// Shapes: B requests, N candidates, L history length, D item width, A and C widths of the layers,
// P pairs.

#include <vector>

#include "dice.h"
#include "inputs.h"
#include "pairs.h"
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace sequence_ctr {
namespace {

class LocalActivationOp : public OpKernel {
 public:
  explicit LocalActivationOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("epsilon", &epsilon_));
  }

  void Compute(OpKernelContext* context) override {
    Sizes sizes;
    OP_REQUIRES_OK(context, ReadSizes(context, &sizes));
    const auto [B, N, L, D, A, C] = sizes;
    constexpr int kOfQueries = kOthers, kOfEvents = kOthers + 1, kBias2 = kOthers + 2;
    OP_REQUIRES_OK(context, Check(context, kOfQueries, "of_queries", {B, N, A}));
    OP_REQUIRES_OK(context, Check(context, kOfEvents, "of_events", {B, L, A}));
    OP_REQUIRES_OK(context, Check(context, kBias2, "bias2", {C}));
    const float* queries = Values(context->input(kQueries));
    const float* events = Values(context->input(kEvents));
    const float* of_queries = Values(context->input(kOfQueries));
    const float* of_events = Values(context->input(kOfEvents));
    const float* bias2 = Values(context->input(kBias2));
    const ConstMatrixView product_kernel = AsMatrix(context->input(kProductKernel));
    const ConstMatrixView kernel2 = AsMatrix(context->input(kKernel2));
    const Eigen::Map<const Eigen::VectorXf> scorer(Values(context->input(kScorer)), C);
    const Pairs pairs(context->input(kMask));
    const int64_t P = pairs.count();

    Tensor* outputs[7];
    const TensorShape shapes[] = {{B, N, L}, {P, A}, {P, C}, {A}, {A}, {C}, {C}};
    for (int i = 0; i < 7; ++i) {
      OP_REQUIRES_OK(context, context->allocate_output(i, shapes[i], &outputs[i]));
    }
    auto [scores_tensor, x1_tensor, x2_tensor, mean1, variance1, mean2, variance2] = outputs;
    scores_tensor->flat<float>().setZero();
    float *scores = Values(scores_tensor), *x1 = Values(x1_tensor), *x2 = Values(x2_tensor);

    // The first layer, up to its activation.
    std::vector<Moments> moments1(kParts, Moments(A)), moments2(kParts, Moments(C));
    ForParts(context, [&, A = A, D = D](int part) {
      Matrix products(kPairsOfBlock, D);
      pairs.ForBlocks(part, [&](int64_t first, int count) {
        Multiply(pairs, first, count, queries, events, D, products.data());
        float* rows = x1 + first * A;
        for (int i = 0; i < count; ++i) {
          const Pair& pair = pairs[first + i];
          const float* of_query = of_queries + pair.candidate * A;
          const float* of_event = of_events + pair.event * A;
          float* row = rows + i * A;
#pragma GCC ivdep
          for (int c = 0; c < A; ++c) row[c] = of_query[c] + of_event[c];
        }
        MatrixView(rows, count, A).noalias() += products.topRows(count) * product_kernel;
        moments1[part].Add(rows, count);
      });
    });
    WriteMoments(moments1, mean1, variance1);
    const Dice dice1(Values(context->input(kAlpha1)), Values(mean1), Values(variance1), A,
                     epsilon_);

    // Its activation, and the second layer up to its own.
    ForParts(context, [&, A = A, C = C](int part) {
      Matrix activated(kPairsOfBlock, A);
      pairs.ForBlocks(part, [&](int64_t first, int count) {
        dice1.Activate(x1 + first * A, count, activated.data());
        float* rows = x2 + first * C;
        for (int i = 0; i < count; ++i) std::copy(bias2, bias2 + C, rows + i * C);
        MatrixView(rows, count, C).noalias() += activated.topRows(count) * kernel2;
        moments2[part].Add(rows, count);
      });
    });
    WriteMoments(moments2, mean2, variance2);
    const Dice dice2(Values(context->input(kAlpha2)), Values(mean2), Values(variance2), C,
                     epsilon_);

    // The scores.
    ForParts(context, [&, C = C](int part) {
      Matrix activated(kPairsOfBlock, C);
      Eigen::VectorXf scores_of_block(kPairsOfBlock);
      pairs.ForBlocks(part, [&](int64_t first, int count) {
        dice2.Activate(x2 + first * C, count, activated.data());
        scores_of_block.head(count).noalias() = activated.topRows(count) * scorer;
        for (int i = 0; i < count; ++i) scores[pairs[first + i].place] = scores_of_block[i];
      });
    });
  }

 private:
  float epsilon_;
};

class LocalActivationGradOp : public OpKernel {
 public:
  explicit LocalActivationGradOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("epsilon", &epsilon_));
  }

  void Compute(OpKernelContext* context) override {
    Sizes sizes;
    OP_REQUIRES_OK(context, ReadSizes(context, &sizes));
    const auto [B, N, L, D, A, C] = sizes;
    const float* queries = Values(context->input(kQueries));
    const float* events = Values(context->input(kEvents));
    const Pairs pairs(context->input(kMask));
    const int64_t P = pairs.count();
    constexpr const char* kNames[] = {"x1", "x2", "mean1", "variance1", "mean2", "variance2",
                                      "of_scores"};
    const TensorShape expected[] = {{P, A}, {P, C}, {A}, {A}, {C}, {C}, {B, N, L}};
    for (int i = 0; i < 7; ++i) {
      OP_REQUIRES_OK(context, Check(context, kOthers + i, kNames[i], expected[i]));
    }
    const auto other = [&](int i) { return Values(context->input(kOthers + i)); };
    const float *x1 = other(0), *x2 = other(1), *of_scores = other(6);
    const Dice dice1(Values(context->input(kAlpha1)), other(2), other(3), A, epsilon_);
    const Dice dice2(Values(context->input(kAlpha2)), other(4), other(5), C, epsilon_);
    const ConstMatrixView product_kernel = AsMatrix(context->input(kProductKernel));
    const ConstMatrixView kernel2 = AsMatrix(context->input(kKernel2));
    const Eigen::Map<const Eigen::RowVectorXf> scorer(Values(context->input(kScorer)), C);

    Tensor* outputs[10];
    const TensorShape shapes[] = {{B, N, D}, {B, L, D}, {B, N, A}, {B, L, A}, {D, A},
                                  {A},       {A, C},    {C},       {C},       {C}};
    for (int i = 0; i < 10; ++i) {
      OP_REQUIRES_OK(context, context->allocate_output(i, shapes[i], &outputs[i]));
      outputs[i]->flat<float>().setZero();
    }
    if (P == 0) return;
    // The scorer, and the second activation under fixed statistics.
    Tensor direct1_tensor, direct2_tensor;
    OP_REQUIRES_OK(context, context->allocate_temp(tensorflow::DT_FLOAT, {P, A}, &direct1_tensor));
    OP_REQUIRES_OK(context, context->allocate_temp(tensorflow::DT_FLOAT, {P, C}, &direct2_tensor));
    float *direct1 = Values(&direct1_tensor), *direct2 = Values(&direct2_tensor);
    std::vector<DiceSums> sums1(kParts, DiceSums(A)), sums2(kParts, DiceSums(C));
    std::vector<Matrix> of_scorer = ZerosOfParts(C, 1);
    ForParts(context, [&, C = C](int part) {
      Matrix activated(kPairsOfBlock, C), upstream(kPairsOfBlock, C);
      Eigen::VectorXf of_score(kPairsOfBlock);
      pairs.ForBlocks(part, [&](int64_t first, int count) {
        for (int i = 0; i < count; ++i) of_score[i] = of_scores[pairs[first + i].place];
        upstream.topRows(count).noalias() = of_score.head(count) * scorer;
        dice2.Backward(x2 + first * C, upstream.data(), count, &sums2[part], activated.data(),
                       direct2 + first * C);
        of_scorer[part].noalias() += activated.topRows(count).transpose() * of_score.head(count);
      });
    });
    const DiceSums all2 = Sum(sums2);
    const Dice::ThroughStatistics through2 = dice2.Through(all2, P);

    // The second layer, and the first activation under fixed statistics.
    std::vector<Matrix> of_kernel2 = ZerosOfParts(A, C), of_bias2 = ZerosOfParts(1, C);
    ForParts(context, [&, A = A, C = C](int part) {
      Matrix activated(kPairsOfBlock, A), upstream(kPairsOfBlock, A), of_x2(kPairsOfBlock, C);
      pairs.ForBlocks(part, [&](int64_t first, int count) {
        dice2.Complete(through2, x2 + first * C, direct2 + first * C, count, of_x2.data());
        for (int i = 0; i < count; ++i) of_bias2[part] += of_x2.row(i);
        upstream.topRows(count).noalias() = of_x2.topRows(count) * kernel2.transpose();
        dice1.Backward(x1 + first * A, upstream.data(), count, &sums1[part], activated.data(),
                       direct1 + first * A);
        of_kernel2[part].noalias() += activated.topRows(count).transpose() * of_x2.topRows(count);
      });
    });
    const DiceSums all1 = Sum(sums1);
    const Dice::ThroughStatistics through1 = dice1.Through(all1, P);

    // The first layer. A pair adds to the gradients of its candidate and of its event.
    float *of_queries = Values(outputs[0]), *of_events = Values(outputs[1]);
    float *of_terms_of_queries = Values(outputs[2]), *of_terms_of_events = Values(outputs[3]);
    std::vector<Matrix> of_product_kernel = ZerosOfParts(D, A);
    ForParts(context, [&, A = A, D = D](int part) {
      Matrix products(kPairsOfBlock, D), of_products(kPairsOfBlock, D), of_x1(kPairsOfBlock, A);
      pairs.ForBlocks(part, [&](int64_t first, int count) {
        dice1.Complete(through1, x1 + first * A, direct1 + first * A, count, of_x1.data());
        Multiply(pairs, first, count, queries, events, D, products.data());
        const auto of_rows = of_x1.topRows(count);
        of_product_kernel[part].noalias() += products.topRows(count).transpose() * of_rows;
        of_products.topRows(count).noalias() = of_rows * product_kernel.transpose();
        for (int i = 0; i < count; ++i) {
          const int64_t candidate = pairs[first + i].candidate, event = pairs[first + i].event;
          const float *of_product = of_products.data() + i * D, *of_row = of_x1.data() + i * A;
          MultiplyAdd(of_product, events + event * D, D, of_queries + candidate * D);
          MultiplyAdd(of_product, queries + candidate * D, D, of_events + event * D);
          Add(of_row, A, of_terms_of_queries + candidate * A);
          Add(of_row, A, of_terms_of_events + event * A);
        }
      });
    });
    WriteSum(of_product_kernel, outputs[4]);
    std::copy(all1.of_alpha.begin(), all1.of_alpha.end(), Values(outputs[5]));
    WriteSum(of_kernel2, outputs[6]);
    std::copy(all2.of_alpha.begin(), all2.of_alpha.end(), Values(outputs[7]));
    WriteSum(of_scorer, outputs[8]);
    WriteSum(of_bias2, outputs[9]);
  }

 private:
  static void Add(const float* values, int count, float* sums) {
#pragma GCC ivdep
    for (int c = 0; c < count; ++c) sums[c] += values[c];
  }

  static void MultiplyAdd(const float* values, const float* factors, int count, float* sums) {
#pragma GCC ivdep
    for (int c = 0; c < count; ++c) sums[c] += values[c] * factors[c];
  }

  float epsilon_;
};

REGISTER_OP("SequenceCtrLocalActivation")
    .Attr("epsilon: float")
    .Input("queries: float")
    .Input("events: float")
    .Input("mask: bool")
    .Input("product_kernel: float")
    .Input("alpha1: float")
    .Input("kernel2: float")
    .Input("alpha2: float")
    .Input("scorer: float")
    .Input("of_queries: float")
    .Input("of_events: float")
    .Input("bias2: float")
    .Output("scores: float")
    .Output("x1: float")
    .Output("x2: float")
    .Output("mean1: float")
    .Output("variance1: float")
    .Output("mean2: float")
    .Output("variance2: float")
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) {
      const auto layer1 = context->input(kAlpha1), layer2 = context->input(kAlpha2);
      tensorflow::shape_inference::ShapeHandle x1, x2;
      const auto pairs = context->MakeShape({context->UnknownDim()});
      TF_RETURN_IF_ERROR(context->Concatenate(pairs, layer1, &x1));
      TF_RETURN_IF_ERROR(context->Concatenate(pairs, layer2, &x2));
      context->set_output(0, context->input(kMask));
      context->set_output(1, x1);
      context->set_output(2, x2);
      for (int i : {3, 4}) context->set_output(i, layer1);
      for (int i : {5, 6}) context->set_output(i, layer2);
      return tensorflow::Status();
    });

REGISTER_OP("SequenceCtrLocalActivationGrad")
    .Attr("epsilon: float")
    .Input("queries: float")
    .Input("events: float")
    .Input("mask: bool")
    .Input("product_kernel: float")
    .Input("alpha1: float")
    .Input("kernel2: float")
    .Input("alpha2: float")
    .Input("scorer: float")
    .Input("x1: float")
    .Input("x2: float")
    .Input("mean1: float")
    .Input("variance1: float")
    .Input("mean2: float")
    .Input("variance2: float")
    .Input("of_scores: float")
    .Output("of_queries: float")
    .Output("of_events: float")
    .Output("of_terms_of_queries: float")
    .Output("of_terms_of_events: float")
    .Output("of_product_kernel: float")
    .Output("of_alpha1: float")
    .Output("of_kernel2: float")
    .Output("of_alpha2: float")
    .Output("of_scorer: float")
    .Output("of_bias2: float")
    .SetShapeFn(tensorflow::shape_inference::UnknownShape);

REGISTER_KERNEL_BUILDER(Name("SequenceCtrLocalActivation").Device(tensorflow::DEVICE_CPU),
                        LocalActivationOp);
REGISTER_KERNEL_BUILDER(Name("SequenceCtrLocalActivationGrad").Device(tensorflow::DEVICE_CPU),
                        LocalActivationGradOp);

}  // namespace
}  // namespace sequence_ctr
