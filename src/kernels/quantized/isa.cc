#include "kernels/quantized/isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <string>

#include "base/env.h"
#include "base/error.h"
#include "base/suggest.h"
#include "kernels/quantized/float_tile.h"

namespace puna::kernels {
namespace {

bool cpu_has(Isa isa) {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  if (isa == Isa::Avx2) return avx2;
  if (isa == Isa::Avx512Vnni) return avx2 && avx512 && __builtin_cpu_supports("avx512vnni");
#endif
  return isa == Isa::Reference;
}

const TileKernels* built(Isa isa) {
  switch (isa) {
    case Isa::Avx512Vnni:
      return avx512_vnni_tile_kernels();
    case Isa::Avx2:
      return avx2_tile_kernels();
    default:
      return reference_tile_kernels();
  }
}

std::string names_of_available() {
  std::string names;
  for (Isa isa : kIsas) {
    if (isa_available(isa)) names += (names.empty() ? "" : ", ") + std::string(isa_name(isa));
  }
  return names;
}

}  // namespace

std::string_view isa_name(Isa isa) {
  return isa == Isa::Reference ? "reference" : isa == Isa::Avx2 ? "avx2" : "avx512_vnni";
}

std::optional<Isa> isa_from_name(std::string_view name) {
  for (Isa isa : kIsas) {
    if (isa_name(isa) == name) return isa;
  }
  return std::nullopt;
}

bool isa_available(Isa isa) { return cpu_has(isa) && built(isa); }

Isa chosen_isa() {
  if (const auto name = env::isa()) {
    const auto isa = isa_from_name(*name);
    if (isa && isa_available(*isa)) return *isa;
    if (isa) fail("PUNA_ISA", "this CPU has no '{}'; it has: {}", *name, names_of_available());
    std::string known[std::size(kIsas)];
    for (size_t i = 0; i < std::size(kIsas); ++i) known[i] = isa_name(kIsas[i]);
    const std::string nearest = nearest_name(*name, known);
    if (!nearest.empty()) fail("PUNA_ISA", "unknown instruction set '{}'; did you mean '{}'?", *name, nearest);
    fail("PUNA_ISA", "unknown instruction set '{}'; this CPU has: {}", *name, names_of_available());
  }
  Isa best = Isa::Reference;
  for (Isa isa : kIsas) {
    if (isa_available(isa)) best = isa;
  }
  return best;
}

std::string reason_of_isa() {
  if (env::isa()) return "PUNA_ISA asks for it";
  std::string known;
  for (Isa isa : kIsas) known += (known.empty() ? "" : ", ") + std::string(isa_name(isa));
  return "the best that this CPU has of " + known;
}

bool cpu_has_amx_bf16() {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d >> 22 & 1) != 0;
#else
  return false;
#endif
}

const TileKernels& tile_kernels(Isa isa) {
  PUNA_CHECK(isa_available(isa), "{} is not available on this CPU", isa_name(isa));
  return *built(isa);
}

void quantize_rows(const float* x, int64_t stride, int64_t k, int64_t begin, int64_t end, Isa isa,
                   const QuantizedRows& rows) {
  tile_kernels(isa).quantize_f32(x, stride, k, begin, end, rows);
}

void quantize_rows(const uint16_t* x, int64_t stride, int64_t k, int64_t begin, int64_t end, Isa isa,
                   const QuantizedRows& rows) {
  tile_kernels(isa).quantize_bf16(x, stride, k, begin, end, rows);
}

void quantize_swiglu_rows(const float* gate, const float* up, int64_t stride, int64_t k, int64_t begin, int64_t end,
                          Isa isa, const QuantizedRows& rows) {
  tile_kernels(isa).quantize_swiglu(gate, up, stride, k, begin, end, rows);
}

void swiglu_rows(const float* gate, const float* up, int64_t stride, int64_t k, int64_t begin, int64_t end, Isa isa,
                 uint16_t* out) {
  tile_kernels(isa).swiglu_bf16(gate, up, stride, k, begin, end, out);
}

const FloatTileKernels& float_tile_kernels(Isa isa) {
  PUNA_CHECK(isa_available(isa), "{} is not available on this CPU", isa_name(isa));
#if defined(__x86_64__)
  const bool has_bf16 = __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vbmi");
  if (isa == Isa::Avx512Vnni && has_bf16) return *avx512_bf16_float_tile_kernels();
  if (isa != Isa::Reference) return *avx2_float_tile_kernels();
#endif
  return *reference_float_tile_kernels();
}

std::string_view float_kernel_name(Isa isa) { return float_tile_kernels(isa).name; }

int64_t run_int8_dots(Isa isa, int64_t rounds) { return tile_kernels(isa).dots(rounds); }
int64_t run_bf16_dots(Isa isa, int64_t rounds) { return float_tile_kernels(isa).dots(rounds); }

}  // namespace puna::kernels
