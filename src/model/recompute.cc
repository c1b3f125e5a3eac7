#include "model/recompute.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

namespace puna::model {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Holder : torch::CustomClassHolder {
  explicit Holder(Block b) : block(std::move(b)) {}
  Block block;
};

// The input as a leaf, so that the block's graph ends there.
at::Tensor leaf_of(const at::Tensor& x) { return x.detach().requires_grad_(x.requires_grad()); }

class Recomputed : public torch::autograd::Function<Recomputed> {
 public:
  static variable_list forward(AutogradContext* ctx, at::TensorList inputs, const Block& block) {
    ctx->save_for_backward(inputs.vec());
    ctx->saved_data["block"] = c10::IValue::make_capsule(c10::make_intrusive<Holder>(block));
    ctx->set_materialize_grads(false);
    variable_list outputs;
    const at::AutoGradMode with_graph(true);  // the same ops as in backward, not those that overwrite their temporaries
    for (const at::Tensor& output : block(leaf_of(inputs[0]), false)) outputs.push_back(output.detach());
    return outputs;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const variable_list inputs = ctx->get_saved_variables();
    const auto holder = c10::static_intrusive_pointer_cast<Holder>(ctx->saved_data["block"].toCapsule());
    variable_list outputs, seeds, wanted;
    std::vector<size_t> places;
    {
      const at::AutoGradMode with_graph(true);
      const at::Tensor x = leaf_of(inputs[0]);
      const variable_list all = holder->block(x, true);
      for (size_t i = 0; i < all.size(); ++i) {
        if (!gradients[i].defined() || !all[i].requires_grad()) continue;
        outputs.push_back(all[i]);
        seeds.push_back(gradients[i]);
      }
      for (size_t i = 0; i < inputs.size(); ++i) {
        const at::Tensor& input = i == 0 ? x : inputs[i];
        if (!input.requires_grad()) continue;
        wanted.push_back(input);
        places.push_back(i);
      }
    }
    variable_list result(inputs.size() + 1);
    if (outputs.empty()) return result;
    const variable_list found = torch::autograd::grad(outputs, wanted, seeds, /*retain_graph=*/std::nullopt,
                                                      /*create_graph=*/false, /*allow_unused=*/true);
    for (size_t i = 0; i < found.size(); ++i) result[places[i]] = found[i];
    return result;
  }
};

}  // namespace

std::vector<at::Tensor> recomputed(const at::Tensor& x, const std::vector<at::Tensor>& weights, Block block) {
  std::vector<at::Tensor> inputs = {x};
  inputs.insert(inputs.end(), weights.begin(), weights.end());
  return Recomputed::apply(at::TensorList(inputs), block);
}

}  // namespace puna::model
