#include "ops/packed.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

#include "base/error.h"
#include "ops/adapters.h"
#include "ops/grad.h"
#include "ops/share_out.h"

namespace puna::ops {
namespace {

using kernels::MatmulProblem;
using kernels::QuantizedRows;
using kernels::WeightShape;

constexpr size_t kHugePage = size_t{2} << 20;
constexpr int64_t kQuantizedAtOnce = 16;             // rows; fewer are not worth a thread
constexpr int64_t kHiddenBytes = int64_t{32} << 20;  // of a feed-forward layer's hidden values at a time

kernels::Isa isa() {
  static const kernels::Isa chosen = kernels::chosen_isa();
  return chosen;
}

/// In huge pages where the system gives them: a step reads all weights, and page tables should not be most of it.
std::shared_ptr<std::byte> allocate(int64_t bytes) {
  const size_t size = (static_cast<size_t>(bytes) + kHugePage - 1) / kHugePage * kHugePage;
  const size_t reserved = size + kHugePage;
  void* at = ::mmap(nullptr, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) throw std::bad_alloc();
  const auto begin = reinterpret_cast<uintptr_t>(at);
  const uintptr_t aligned = (begin + kHugePage - 1) / kHugePage * kHugePage;
  if (static_cast<size_t>(bytes) >= kHugePage) ::madvise(reinterpret_cast<void*>(aligned), size, MADV_HUGEPAGE);
  return {reinterpret_cast<std::byte*>(aligned), [at, reserved](std::byte*) { ::munmap(at, reserved); }};
}

/// work(first, end) for pieces of `rows`.
void for_pieces(int64_t rows, const std::function<void(int64_t, int64_t)>& work) {
  const int64_t pieces = (rows + kQuantizedAtOnce - 1) / kQuantizedAtOnce;
  share_out(pieces, [&](int64_t i) { work(i * kQuantizedAtOnce, std::min(rows, (i + 1) * kQuantizedAtOnce)); });
}

QuantizedRows from_row(const QuantizedRows& rows, int64_t row, int64_t k) {
  const kernels::RowLayout layout = kernels::row_layout(k);
  return {rows.q + row * layout.values, rows.scales + row * layout.scales, rows.sums + row * layout.sums};
}

template <typename T>
const T* from(const std::vector<T>& values, int64_t row) {
  return values.empty() ? nullptr : values.data() + row;
}

void set_out(MatmulProblem& problem, const at::Tensor& out, int64_t row, int64_t column) {
  const int64_t element = out.element_size();
  problem.out = static_cast<std::byte*>(out.mutable_data_ptr()) + (row * out.stride(0) + column) * element;
  problem.out_stride = out.stride(0);
  problem.out_bf16 = out.scalar_type() == at::kBFloat16;
}

MatmulProblem problem_of(const PackedWeight& weight, const std::vector<int64_t>& offsets) {
  MatmulProblem problem = {};
  problem.shape = weight.shapes[0];
  problem.formats = weight.shapes.formats.data();
  problem.num_experts = static_cast<int64_t>(weight.matrices.size());
  problem.weights = weight.matrices.data();
  problem.offsets = offsets.data();
  return problem;
}

/// Rows of x from `first`.
void set_input(MatmulProblem& problem, QuantizedInput& x, int64_t first = 0) {
  const WeightShape& shape = problem.shape;
  if (shape.format.floats)
    problem.x_bf16 = x.bf16() + first * shape.k;
  else
    problem.x = from_row(x.rows(), first, shape.k);
}

/// Rows `first` to `end` of a layer, on the way through its two products.
struct Piece {
  const PackedFeedForward& layer;
  int64_t first, rows;
  std::vector<int64_t> offsets;
  at::Tensor hidden;  // [rows or more, 2F]
  std::optional<RowBuffer> gated;
  at::Tensor gated_bf16;  // [rows, F], where down has floats

  Piece(const PackedFeedForward& of, int64_t begin, int64_t end, const at::Tensor& buffer)
      : layer(of), first(begin), rows(end - begin), hidden(buffer) {
    for (const int64_t offset : layer.offsets) offsets.push_back(std::clamp(offset, begin, end) - begin);
  }

  int64_t width() const { return layer.down->shapes.k; }

  void add_first(QuantizedInput& x, std::vector<MatmulProblem>& problems) const {
    int64_t column = 0;
    for (const PackedWeight* weight : layer.gate_up) {
      MatmulProblem problem = problem_of(*weight, offsets);
      set_input(problem, x, layer.tokens.empty() ? first : 0);
      problem.row_index = from(layer.tokens, first);
      problem.row_factors = from(layer.input_factors, first);
      set_out(problem, hidden, 0, column);
      problems.push_back(problem);
      column += weight->shapes.n;
    }
  }

  void gate() {
    const int64_t F = width();
    const float* values = hidden.const_data_ptr<float>();
    if (layer.down->shapes.floats()) {
      gated_bf16 = at::empty({rows, F}, at::kBFloat16);
      auto* out = static_cast<uint16_t*>(gated_bf16.mutable_data_ptr());
      for_pieces(rows, [&](int64_t begin, int64_t end) {
        kernels::swiglu_rows(values, values + F, 2 * F, F, begin, end, isa(), out);
      });
      return;
    }
    const RowBuffer& buffer = gated.emplace(rows, F);
    for_pieces(rows, [&](int64_t begin, int64_t end) {
      kernels::quantize_swiglu_rows(values, values + F, 2 * F, F, begin, end, isa(), buffer.rows);
    });
  }

  MatmulProblem second() const {
    MatmulProblem problem = problem_of(*layer.down, offsets);
    if (gated_bf16.defined())
      problem.x_bf16 = static_cast<const uint16_t*>(gated_bf16.const_data_ptr());
    else
      problem.x = gated->rows;
    problem.row_factors = from(layer.output_factors, first);
    set_out(problem, layer.out, first, 0);
    return problem;
  }
};

void check_input(const at::Tensor& x, const Weight& weight) {
  PUNA_CHECK(weight.packed && x.dim() == 2 && x.size(1) == weight.inputs(),
             "packed '{}': x has {} columns, the weight takes {}", weight.name, x.size(-1), weight.inputs());
  check_no_gradient(x, weight);
}

}  // namespace

PackedWeight::PackedWeight(kernels::WeightShapes of, bool is_routed) : shapes(std::move(of)), routed(is_routed) {
  isa();
  bytes = allocate(num_bytes());
  const std::byte* next = bytes.get();
  for (int64_t i = 0; i < shapes.count(); ++i) {
    matrices.push_back(next);
    next += kernels::packed_layout(shapes[i]).total_bytes;
  }
}

PackedWeight::PackedWeight(kernels::WeightShapes of, bool is_routed, std::vector<const std::byte*> where,
                           std::shared_ptr<std::byte> owner)
    : shapes(std::move(of)), routed(is_routed), matrices(std::move(where)), bytes(std::move(owner)) {}

std::byte* PackedWeight::at(int64_t matrix) const {
  return bytes.get() + (matrices[static_cast<size_t>(matrix)] - bytes.get());
}

int64_t PackedWeight::num_bytes() const { return kernels::packed_bytes(shapes); }

const at::Tensor& dense_of(const Weight& weight) {
  if (weight.packed || weight.streamed)
    fail("weights",
         "'{}' is laid out for the kernels, as its file stores it; this needs dense values: load with --weights dense",
         weight.name);
  return weight.dense;
}

void check_no_gradient(const at::Tensor& x, const Weight& weight) {
  if (recording() && x.requires_grad())
    fail("weights",
         "no gradient passes through '{}', which is laid out for the kernels, as its file stores it; load with "
         "--weights dense",
         weight.name);
}

bool are_packed(std::initializer_list<const Weight*> weights) {
  return std::ranges::all_of(weights, [](const Weight* w) { return w->packed && !is_adapted(*w); });
}

RowBuffer::RowBuffer(int64_t num_rows, int64_t k) {
  const kernels::RowLayout layout = kernels::row_layout(k);
  const int64_t values = num_rows * layout.values, scales = num_rows * layout.scales, sums = num_rows * layout.sums;
  bytes = at::empty({values + scales * int64_t{sizeof(float)} + sums * int64_t{sizeof(int16_t)}}, at::kByte);
  auto* at = static_cast<std::byte*>(bytes.mutable_data_ptr());
  rows.q = reinterpret_cast<int8_t*>(at);
  rows.scales = reinterpret_cast<float*>(at + values);
  rows.sums = reinterpret_cast<int16_t*>(rows.scales + scales);
}

QuantizedInput::QuantizedInput(const at::Tensor& x) : x_(x.contiguous()) {
  PUNA_CHECK(x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16, "rows of {} cannot be quantised",
             c10::toString(x.scalar_type()));
}

const QuantizedRows& QuantizedInput::rows() {
  if (buffer_) return buffer_->rows;
  const int64_t K = x_.size(1);
  const QuantizedRows& rows = buffer_.emplace(x_.size(0), K).rows;
  for_pieces(x_.size(0), [&](int64_t begin, int64_t end) {
    if (x_.scalar_type() == at::kFloat)
      kernels::quantize_rows(x_.const_data_ptr<float>(), K, K, begin, end, isa(), rows);
    else
      kernels::quantize_rows(static_cast<const uint16_t*>(x_.const_data_ptr()), K, K, begin, end, isa(), rows);
  });
  return rows;
}

const uint16_t* QuantizedInput::bf16() {
  if (!bf16_.defined()) bf16_ = x_.to(at::kBFloat16);
  return static_cast<const uint16_t*>(bf16_.const_data_ptr());
}

void multiply(std::span<const MatmulProblem> problems) {
  int64_t bytes = 0;
  for (const MatmulProblem& problem : problems)
    bytes += kernels::matmul_workspace_bytes(problem.shape, problem.offsets[problem.num_experts]);
  const at::Tensor workspace = at::empty({bytes}, at::kByte);
  kernels::matmul(problems, isa(), static_cast<std::byte*>(workspace.mutable_data_ptr()), share_out);
}

std::vector<at::Tensor> packed_linears(const at::Tensor& x, const std::vector<const Weight*>& weights) {
  QuantizedInput input(x);
  const std::vector<int64_t> offsets = {0, x.size(0)};
  std::vector<at::Tensor> products;
  std::vector<MatmulProblem> problems;
  for (const Weight* weight : weights) {
    check_input(x, *weight);
    products.push_back(at::empty({x.size(0), weight->outputs()}, x.options().requires_grad(false)));
    problems.push_back(problem_of(*weight->packed, offsets));
    set_input(problems.back(), input);
    set_out(problems.back(), products.back(), 0, 0);
  }
  multiply(problems);
  return products;
}

at::Tensor packed_grouped_linear(const at::Tensor& x, const Weight& weight, const std::vector<int64_t>& offsets) {
  check_input(x, weight);
  QuantizedInput input(x);
  const at::Tensor product = at::empty({x.size(0), weight.outputs()}, x.options().requires_grad(false));
  MatmulProblem problem = problem_of(*weight.packed, offsets);
  set_input(problem, input);
  set_out(problem, product, 0, 0);
  multiply(std::span(&problem, 1));
  return product;
}

void run(std::span<const PackedFeedForward> layers, QuantizedInput& x) {
  int64_t rows = 0, row_bytes = 0;
  for (const PackedFeedForward& layer : layers) {
    rows = std::max(rows, layer.offsets.back());
    row_bytes = std::max(row_bytes, 2 * layer.down->shapes.k * static_cast<int64_t>(sizeof(float)));
  }
  const int64_t step = std::max(kQuantizedAtOnce, kHiddenBytes / row_bytes);
  std::vector<at::Tensor> hidden;
  for (const PackedFeedForward& layer : layers)
    hidden.push_back(at::empty({std::min(step, layer.offsets.back()), 2 * layer.down->shapes.k}, at::kFloat));
  for (int64_t begin = 0; begin < rows; begin += step) {
    std::vector<Piece> pieces;
    for (size_t i = 0; i < layers.size(); ++i) {
      const int64_t all = layers[i].offsets.back();
      if (begin < all) pieces.emplace_back(layers[i], begin, std::min(begin + step, all), hidden[i]);
    }
    std::vector<MatmulProblem> problems;
    for (const Piece& piece : pieces) piece.add_first(x, problems);
    multiply(problems);
    problems.clear();
    for (Piece& piece : pieces) {
      piece.gate();
      problems.push_back(piece.second());
    }
    multiply(problems);
  }
}

}  // namespace puna::ops
