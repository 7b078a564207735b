#include "kernels/adamw/adamw.h"

namespace rat::kernels {

Status adamw(const AdamWArgs& args, const Exec& exec) {
  RAT_CHECK(args.squared_norm != nullptr, "adamw says how long the gradient was");
  for (const AdamWTensor& tensor : args.tensors) {
    const std::size_t n = tensor.value.size();
    if (tensor.grad.size() != n || tensor.m.size() != n || tensor.v.size() != n)
      return fail(ErrorCode::shape_mismatch, "adamw: value {}, grad {}, m {} and v {} must have one length", n,
                  tensor.grad.size(), tensor.m.size(), tensor.v.size());
  }
  return exec.run(&Backend::adamw, "adamw", args);
}

}  // namespace rat::kernels
