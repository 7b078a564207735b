"""Makes torch_small.pth: one small file that PyTorch itself wrote, for the reader's tests on machines without PyTorch.

    python3 tests/golden/torch_small.py        (needs torch; the file is checked in)

The layout is that of the published training code: {"task": state_dict, "config": EasyDict, "step", "optimizer"}. Every
tensor is a formula of its index, so the test knows each value.
"""
import os
import sys
import types

import torch


class EasyDict(dict):
    """What the easydict package makes of a config: a dict whose keys are attributes too, so its pickle has both."""

    def __init__(self, values):
        super().__init__()
        for key, value in values.items():
            value = EasyDict(value) if isinstance(value, dict) else value
            self[key] = value
            self.__dict__[key] = value


module = types.ModuleType("easydict")
EasyDict.__module__, EasyDict.__qualname__ = "easydict", "EasyDict"
module.EasyDict = EasyDict
sys.modules["easydict"] = module


def ramp(*shape, dtype=torch.float32):
    count = 1
    for size in shape:
        count *= size
    return (torch.arange(count, dtype=torch.float64) / 8 - 1).reshape(shape).to(dtype)


shared = ramp(6, 4)
marked = ramp(2, 4)
marked._has_been_cloned = True  # what FSDP does to every tensor of its state dict
state = torch.nn.Module().state_dict()  # an OrderedDict with the attribute _metadata, as every state_dict
state.update({
    "f32": ramp(3, 4),
    "f64": ramp(5, dtype=torch.float64),
    "f16": ramp(2, 3, dtype=torch.float16),
    "bf16": ramp(2, 3, dtype=torch.bfloat16),
    "transposed": shared.t(),
    "part": shared[2:5, 1:3],
    "marked": marked,
    "parameter": torch.nn.Parameter(ramp(4)),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 7),
    "i64": torch.arange(3),
})
torch.save({
    "task": state,
    "config": EasyDict({"model": {"backbone": {"num_layers": 2, "ln": "rmsnorm"}}, "lr": 8e-4, "resume": False}),
    "step": 70000,
    "optimizer": {"state": {0: {"step": torch.tensor(3.0), "exp_avg": ramp(3, 4)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
    "resume_kwargs": {},
}, os.path.join(os.path.dirname(os.path.abspath(__file__)), "torch_small.pth"))
