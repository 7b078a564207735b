// The devices that a spec or a command may name. Whether this build and this machine have one is the backend's to say.
#pragma once

#include <string>
#include <vector>

namespace rat::kernels {

inline std::vector<std::string> device_names() { return {"cpu", "cuda"}; }

}  // namespace rat::kernels
