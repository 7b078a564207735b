// A training step in its steady state allocates nothing: everything it writes was reserved by the first steps.
// Counts every operator new of the process, which is how all of our own code allocates.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "core/mixer_list.h"
#include "core/model.h"
#include "core/optimizer.h"
#include "kernels/base/parallel.h"

namespace {
std::atomic<int64_t> allocations{0};

void* allocate(std::size_t size, std::size_t alignment) {
  ++allocations;
  void* data = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  if (data == nullptr) throw std::bad_alloc();
  return data;
}
}  // namespace

void* operator new(std::size_t size) { return allocate(size, alignof(std::max_align_t)); }
void* operator new[](std::size_t size) { return allocate(size, alignof(std::max_align_t)); }
void* operator new(std::size_t size, std::align_val_t align) { return allocate(size, static_cast<std::size_t>(align)); }
void* operator new[](std::size_t size, std::align_val_t align) {
  return allocate(size, static_cast<std::size_t>(align));
}
// The library's would call those above, but a sanitizer brings its own.
void* operator new(std::size_t size, std::align_val_t align, const std::nothrow_t&) noexcept try {
  return allocate(size, static_cast<std::size_t>(align));
} catch (const std::bad_alloc&) {
  return nullptr;
}
void operator delete(void* data) noexcept { std::free(data); }
void operator delete[](void* data) noexcept { std::free(data); }
void operator delete(void* data, std::size_t) noexcept { std::free(data); }
void operator delete[](void* data, std::size_t) noexcept { std::free(data); }
void operator delete(void* data, std::align_val_t) noexcept { std::free(data); }
void operator delete[](void* data, std::align_val_t) noexcept { std::free(data); }
void operator delete(void* data, std::size_t, std::align_val_t) noexcept { std::free(data); }
void operator delete[](void* data, std::size_t, std::align_val_t) noexcept { std::free(data); }

namespace rat {
namespace {

struct Training {
  std::unique_ptr<Model> model;
  AdamW optimizer;
  TokenBatch batch;

  // Allocations of one whole step.
  int64_t step() {
    const int64_t before = allocations;
    EXPECT_TRUE(bool(model->zero_gradients()));
    const auto loss = model->loss_and_gradients(batch, 1.0);
    EXPECT_TRUE(loss) << loss.error().message;
    EXPECT_TRUE(bool(optimizer.step(*model, 1e-3)));
    return allocations - before;
  }
};

Training training_of(std::string_view kind, kernels::Dtype dtype) {
  ModelConfig config;
  config.d_model = 64;
  config.heads = 4;
  config.layers = *parse_layers(fmt::format("{}*2", kind));
  auto model = *Model::create(config, 1);
  EXPECT_TRUE(model->set_dtype(dtype));
  AdamW optimizer(model->parameters(), {});
  TokenBatch batch{.batch = 2, .tokens = 80, .inputs = {}, .targets = {}};
  for (int32_t i = 0; i < 160; ++i) {
    batch.inputs.push_back(i * 7 % 256);
    batch.targets.push_back(i * 11 % 256);
  }
  return {std::move(model), std::move(optimizer), std::move(batch)};
}

TEST(Allocation, CounterCounts) {
  const int64_t before = allocations;
  const auto one = std::make_unique<int>(1);
  EXPECT_EQ(allocations - before, 1) << *one;
}

TEST(Allocation, TrainingStepsAllocateNothingAfterTheFirstTwo) {
  kernels::set_thread_count(1);
  for (const MixerType& type : mixer_types())
    for (const kernels::Dtype dtype : {kernels::Dtype::f32, kernels::Dtype::bf16}) {
      if (!kernels::cpu_supports(dtype)) continue;
      Training training = training_of(type.name, dtype);
      training.step();
      training.step();
      for (int step = 3; step <= 5; ++step)
        EXPECT_EQ(training.step(), 0) << type.name << " " << kernels::dtype_name(dtype) << " step " << step;
    }
}

// A step of decoding gives back its logits and takes no other memory, for one sequence or several.
TEST(Allocation, DecodingStepsAllocateTheirLogitsOnly) {
  kernels::set_thread_count(1);
  for (const char* layers : {"rnn*2", "linear*2", "rat:1000*2", "swa:8*2", "rattention:8*2", "ratplus:1000/w8*2"})
    for (const int64_t batch : {1, 5, 20}) {
      ModelConfig config;
      config.d_model = 64;
      config.heads = 4;
      config.layers = *parse_layers(layers);
      auto model = *Model::create(config, 1);
      auto state = model->start_decoding(batch);
      std::vector<int32_t> tokens(static_cast<std::size_t>(batch), 7);
      for (int t = 0; t < 20; ++t) EXPECT_TRUE(model->decode(*state, tokens));
      const int64_t before = allocations;
      for (int t = 0; t < 10; ++t) EXPECT_TRUE(model->decode(*state, tokens));
      EXPECT_EQ(allocations - before, 10) << layers << " batch " << batch;
    }
}

// With several threads a worker may meet a kind of block for the first time in a later step; that must end.
TEST(Allocation, StepsOfSeveralThreadsSettleToo) {
  kernels::set_thread_count(3);
  Training training = training_of("rat:16", kernels::Dtype::f32);
  int64_t last = 1;
  for (int step = 0; step < 100 && last > 0; ++step) last = training.step();
  EXPECT_EQ(last, 0);
}

}  // namespace
}  // namespace rat
