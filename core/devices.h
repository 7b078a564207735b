// What this build computes on and what this machine has of it: for pickers and for `rat doctor`.
#pragma once

#include <string>
#include <vector>

namespace rat {

struct Device {
  std::string name;                 // "cpu", "cuda": what a spec or --device says
  std::string description;          // how it computes f32 products: "NVIDIA H200, cuBLASLt f32, f32 sums"
  std::string problem;              // why it cannot be used here; empty: it can
  std::vector<std::string> dtypes;  // that it computes in
};

// Every backend of this build, the CPU first.
std::vector<Device> devices();

}  // namespace rat
