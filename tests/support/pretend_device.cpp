// A device that is not the CPU to torch, and whose memory is the CPU's: `pretend_device.py` compiles and registers this.
//
// Each operation runs on the CPU, over the same memory, and its results are on the device. What a GPU refuses is refused:
// tensors of several devices in one operation, and a generator of another device.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <string_view>
#include <unordered_set>

namespace {

using at::IValue;
using at::Tensor;
using torch::jit::Stack;

constexpr auto KIND = c10::DeviceType::PrivateUse1;
const c10::Device HERE(KIND, 0);

// Memory, streams, and what torch asks of a device.

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t size) override {
    void* data = c10::GetCPUAllocator()->raw_allocate(size);
    return {data, data, c10::GetCPUAllocator()->raw_deleter(), HERE};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return c10::GetCPUAllocator()->raw_deleter();
  }
  void copy_data(void* to, const void* from, size_t size) const override {
    default_copy_data(to, from, size);
  }
};
Memory memory;
REGISTER_ALLOCATOR(KIND, &memory)

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return KIND; }
  c10::Device exchangeDevice(c10::Device) const override { return HERE; }
  c10::Device getDevice() const override { return HERE; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override { return c10::Stream(c10::Stream::DEFAULT, HERE); }
  c10::Stream getNewStream(c10::Device, int) const override { return c10::Stream(c10::Stream::DEFAULT, HERE); }
  c10::Stream exchangeStream(c10::Stream) const override { return c10::Stream(c10::Stream::DEFAULT, HERE); }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void synchronizeDevice(const c10::DeviceIndex) const override {}
  void synchronizeStream(const c10::Stream&) const override {}
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

// A generator of the device draws from a CPU generator of its own.
struct DeviceGenerator final : c10::GeneratorImpl {
  at::Generator drawn = at::detail::createCPUGenerator();
  DeviceGenerator() : GeneratorImpl(HERE, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1)) {}
  void set_current_seed(uint64_t seed) override { drawn.set_current_seed(seed); }
  void set_offset(uint64_t offset) override { drawn.set_offset(offset); }
  uint64_t get_offset() const override { return drawn.get_offset(); }
  uint64_t current_seed() const override { return drawn.current_seed(); }
  uint64_t seed() override { return drawn.seed(); }
  void set_state(const c10::TensorImpl& state) override { drawn.unsafeGetGeneratorImpl()->set_state(state); }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    return drawn.unsafeGetGeneratorImpl()->get_state();
  }
  GeneratorImpl* clone_impl() const override {
    auto* copy = new DeviceGenerator();
    copy->drawn = drawn.clone();
    return copy;
  }
};

bool available = false;

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return available; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return available; }
  c10::DeviceIndex deviceCount() const override { return available ? 1 : 0; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(c10::DeviceIndex) const override {}
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::Device getDeviceFromPtr(void*) const override { return HERE; }
  c10::Allocator* getPinnedMemoryAllocator() const override { return c10::GetCPUAllocator(); }
  at::Generator getNewGenerator(c10::DeviceIndex) const override { return at::make_generator<DeviceGenerator>(); }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    static at::Generator global = at::make_generator<DeviceGenerator>();
    return global;
  }
};
Hooks hooks;
const bool registered = (at::RegisterPrivateUse1HooksInterface(&hooks), true);

// Operations.

bool is_here(const Tensor& tensor) {
  return tensor.defined() && tensor.device().type() == KIND;
}

// A tensor over the same memory that belongs to another device; a storage keeps its source alive.
Tensor over(const c10::Storage& source, const Tensor& like, c10::Device device, c10::DispatchKey key) {
  auto* kept = new c10::Storage(source);
  c10::DataPtr data(source.mutable_data(), kept, [](void* held) { delete static_cast<c10::Storage*>(held); }, device);
  c10::Storage storage(c10::Storage::use_byte_size_t(), source.nbytes(), std::move(data), c10::GetAllocator(device.type()), true);
  Tensor made = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(key), like.dtype());
  made.unsafeGetTensorImpl()->set_sizes_and_strides(like.sizes(), like.strides(), like.storage_offset());
  return made;
}

struct Call {
  std::vector<std::pair<Tensor, Tensor>> aliases;  // of the device, and over its memory on the CPU
  std::vector<Tensor> strangers;  // tensors of the CPU

  Tensor on_cpu(const Tensor& tensor) {
    if (!is_here(tensor)) {
      if (tensor.defined() && tensor.dim() > 0) strangers.push_back(tensor);
      return tensor;
    }
    for (const auto& [original, alias] : aliases)
      if (original.is_same(tensor)) return alias;
    TORCH_CHECK(tensor.layout() == c10::kStrided, "the pretend device has no tensors of layout ", tensor.layout());
    // Tensors that share memory on the device share it on the CPU, too.
    for (const auto& [original, alias] : aliases)
      if (original.storage().is_alias_of(tensor.storage())) {
        Tensor made = at::detail::make_tensor<c10::TensorImpl>(
            c10::Storage(alias.storage()), c10::DispatchKeySet(c10::DispatchKey::CPU), tensor.dtype());
        made.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
        aliases.emplace_back(tensor, made);
        return made;
      }
    Tensor alias = over(tensor.storage(), tensor, c10::kCPU, c10::DispatchKey::CPU);
    aliases.emplace_back(tensor, alias);
    return alias;
  }

  // Give a tensor of the device the shape and the memory that the operation has given to its alias.
  static void adopt(const Tensor& original, const Tensor& alias) {
    auto* impl = original.unsafeGetTensorImpl();
    if (alias.storage().data() != original.storage().data() || alias.storage().nbytes() != original.storage().nbytes()) {
      Tensor moved = over(alias.storage(), alias, HERE, c10::DispatchKey::PrivateUse1);
      impl->set_storage_keep_dtype(moved.storage());
    }
    if (alias.sizes() != original.sizes() || alias.strides() != original.strides() ||
        alias.storage_offset() != original.storage_offset())
      impl->set_sizes_and_strides(alias.sizes(), alias.strides(), alias.storage_offset());
  }

  Tensor on_device(const Tensor& result) const {
    if (!result.defined()) return result;
    for (const auto& [original, alias] : aliases)
      if (alias.is_same(result)) return original;
    for (const auto& stranger : strangers)
      if (stranger.is_same(result)) return result;
    for (const auto& [original, alias] : aliases)
      if (alias.storage().unsafeGetStorageImpl() == result.storage().unsafeGetStorageImpl()) {
        Tensor view = at::detail::make_tensor<c10::TensorImpl>(
            c10::Storage(original.storage()), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), result.dtype());
        view.unsafeGetTensorImpl()->set_sizes_and_strides(result.sizes(), result.strides(), result.storage_offset());
        return view;
      }
    return over(result.storage(), result, HERE, c10::DispatchKey::PrivateUse1);
  }
};

template <typename Change>
IValue changed(const IValue& value, const Change& change) {
  if (value.isTensor()) return change(value.toTensor());
  if (value.isTensorList()) {
    c10::List<Tensor> list;
    for (const Tensor& each : value.toTensorVector()) list.push_back(change(each));
    return list;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<Tensor>> list;
    for (const std::optional<Tensor>& each : value.toOptionalTensorVector())
      list.push_back(each ? std::optional<Tensor>(change(*each)) : std::nullopt);
    return list;
  }
  return value;
}

// What torch does with tensors of several devices: copies, and indices on the CPU.
const std::unordered_set<std::string_view> MIXING = {
    "aten::copy_", "aten::_to_copy", "aten::_copy_from", "aten::index", "aten::_unsafe_index", "aten::index_put",
    "aten::index_put_", "aten::_index_put_impl_", "aten::set_"};

void run(const c10::OperatorHandle& op, Stack* stack) {
  at::AutoDispatchBelowADInplaceOrView below;
  c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const auto& schema = op.schema();
  const size_t count = schema.arguments().size(), first = stack->size() - count;
  Call call;
  std::optional<c10::Device> asked;
  for (size_t number = 0; number < count; ++number) {
    IValue& value = (*stack)[first + number];
    const auto& argument = schema.arguments()[number];
    if (value.isDevice()) {
      asked = value.toDevice();
      if (asked->type() == KIND) value = c10::Device(c10::kCPU);
    } else if (value.isGenerator()) {
      const at::Generator given = value.toGenerator();
      TORCH_CHECK(
          given.device().type() == KIND, "Expected a '", HERE.type(), "' device type for generator but found '",
          given.device(), "' in ", schema.name());
      value = static_cast<DeviceGenerator*>(given.unsafeGetGeneratorImpl())->drawn;
    } else if (value.isNone() && argument.type()->str() == "Generator?") {
      value = static_cast<DeviceGenerator*>(hooks.getDefaultGenerator(0).unsafeGetGeneratorImpl())->drawn;
    } else {
      value = changed(value, [&](const Tensor& tensor) { return call.on_cpu(tensor); });
    }
  }
  TORCH_CHECK(
      call.aliases.empty() || call.strangers.empty() || MIXING.count(schema.name()),
      "Expected all tensors to be on the same device, but found at least two devices, ", HERE, " and cpu, in ", schema.name());
  op.callBoxed(stack);
  for (const auto& [original, alias] : call.aliases) Call::adopt(original, alias);
  const bool stays = asked && asked->type() != KIND;
  const size_t results = schema.returns().size();
  for (size_t number = stack->size() - results; number < stack->size(); ++number)
    if (!stays)
      (*stack)[number] = changed((*stack)[number], [&](const Tensor& result) { return call.on_device(result); });
}

// An operation whose answer is always the same.
template <typename Answer, Answer answer>
void always(const c10::OperatorHandle& op, Stack* stack) {
  torch::jit::drop(*stack, op.schema().arguments().size());
  stack->emplace_back(answer);
}

// Autocast: these operations run in the short format, and losses and norms in fp32.

template <bool to_short>
void cast(const c10::OperatorHandle& op, Stack* stack) {
  c10::impl::ExcludeDispatchKeyGuard once(c10::DispatchKey::AutocastPrivateUse1);
  const auto dtype = to_short ? at::autocast::get_autocast_dtype(KIND) : at::kFloat;
  for (size_t number = stack->size() - op.schema().arguments().size(); number < stack->size(); ++number)
    (*stack)[number] = changed((*stack)[number], [&](const Tensor& tensor) {
      const bool changes = is_here(tensor) && tensor.is_floating_point() && tensor.scalar_type() != at::kDouble;
      return changes ? tensor.to(dtype) : tensor;
    });
  op.callBoxed(stack);
}

// Tensors that are given a storage of the device keep it as it is.
Tensor& set_storage(Tensor& self, c10::Storage source, int64_t offset, at::IntArrayRef sizes, at::IntArrayRef strides) {
  std::vector<int64_t> rows(sizes.size(), 1);
  for (int64_t axis = int64_t(sizes.size()) - 2; axis >= 0; --axis) rows[axis] = rows[axis + 1] * sizes[axis + 1];
  self.unsafeGetTensorImpl()->set_storage_keep_dtype(std::move(source));
  self.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, strides.empty() ? at::IntArrayRef(rows) : strides, offset);
  return self;
}

Tensor& set_whole_storage(Tensor& self, c10::Storage source) {
  const auto count = int64_t(source.nbytes() / self.itemsize());
  return set_storage(self, std::move(source), 0, {count}, {1});
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&run>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  // Those that would look for a kernel of the device themselves.
  for (const char* name : {"copy_", "convolution", "convolution_backward", "_convolution"})
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<&run>());
  library.impl("set_.source_Storage", &set_whole_storage);
  library.impl("set_.source_Storage_storage_offset", &set_storage);
  // Attention in steps, as each device has fused kernels of its own.
  library.impl("_fused_sdp_choice", torch::CppFunction::makeFromBoxedFunction<&always<int64_t, 0>>());
  // `module.to` gives parameters new data, and does not replace them.
  library.impl("_has_compatible_shallow_copy_type", torch::CppFunction::makeFromBoxedFunction<&always<bool, true>>());
}

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFallthrough());
}

TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, library) {
  for (const char* name : {"convolution", "conv1d", "conv2d", "linear", "matmul", "mm", "addmm", "bmm", "baddbmm",
                           "scaled_dot_product_attention"})
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<&cast<true>>());
  for (const char* name : {"log_softmax.int", "softmax.int", "nll_loss", "cross_entropy_loss", "kl_div", "mse_loss",
                           "layer_norm", "group_norm", "pow.Tensor_Scalar", "norm.ScalarOpt_dim", "sum", "sum.dim_IntList",
                           "exp", "log", "prod"})
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<&cast<false>>());
}

// For `pretend_device.py`.
TORCH_LIBRARY(pretend, library) {
  library.def("switch_on(bool now) -> ()", [](bool now) { available = now; });
  library.def("global_generator() -> Generator?", []() { return hooks.getDefaultGenerator(0); });
}

}  // namespace
