// SPDX-License-Identifier: GPL-2.0-only
#include "operators.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <chrono>
#include <tuple>

#include "edge_basis.h"
#include "linear.h"
#include "message.h"
#include "sphere_product.h"

namespace mlip {
namespace {

using at::Tensor;
using Tensors3 = std::tuple<Tensor, Tensor, Tensor>;
using Tensors4 = std::tuple<Tensor, Tensor, Tensor, Tensor>;

thread_local Halo *current_halo = nullptr;
thread_local int current_threads = 0;  // 0: as many as OpenMP gives
thread_local double kernel_time = 0;   // s, of the current evaluation

// The fields of these are given by place below.
static_assert(sizeof(MlipEdgeShape) == 6 * 8 && sizeof(MlipMessageShape) == 13 * 8 && sizeof(MlipSphereShape) == 9 * 8 &&
              sizeof(MlipLinearShape) == 5 * 8 && sizeof(MlipProjectShape) == 5 * 8);

// Calls the float or the double kernel, by the type of `like`.
template <class Call>
void by_type(const Tensor &like, const char *name, Call &&call) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  int status = 0;
  if (like.scalar_type() == at::kFloat)
    status = call(float{});
  else if (like.scalar_type() == at::kDouble)
    status = call(double{});
  else
    TORCH_CHECK(false, name, " is for float32 and float64");
  kernel_time += std::chrono::duration<double>(Clock::now() - start).count();
  TORCH_CHECK(status == 0, name, " has no compiled case for these shapes");
}

template <class T>
T *data(const Tensor &t) {
  return t.data_ptr<T>();
}

// --- edge basis -----------------------------------------------------------------------------------

MlipEdgeShape edge_shape(const Tensor &vectors, const Tensor &polynomials, double cutoff, int64_t intervals,
                         int64_t lmax) {
  return {vectors.size(0), lmax + 1, intervals, current_threads, cutoff, data<double>(polynomials)};
}

Tensors3 edge_basis(const Tensor &vectors_, const Tensor &polynomials_, double cutoff, int64_t intervals,
                    int64_t lmax) {
  const Tensor vectors = vectors_.contiguous(), polynomials = polynomials_.to(at::kDouble).contiguous();
  const int64_t edges = vectors.size(0);
  Tensor y = at::empty({edges, (lmax + 1) * (lmax + 1)}, vectors.options());
  Tensor beta = at::empty({edges, 6}, vectors.options());
  Tensor interval = at::empty({edges}, vectors.options().dtype(at::kLong));
  if (edges == 0) return {y, beta, interval};
  const MlipEdgeShape s = edge_shape(vectors, polynomials, cutoff, intervals, lmax);
  by_type(vectors, "edge_basis", [&](auto t) {
    using T = decltype(t);
    if constexpr (std::is_same_v<T, float>)
      return mlip_edge_basis_f32(&s, data<T>(vectors), data<T>(y), data<T>(beta), data<int64_t>(interval));
    else
      return mlip_edge_basis_f64(&s, data<T>(vectors), data<T>(y), data<T>(beta), data<int64_t>(interval));
  });
  return {y, beta, interval};
}

Tensor edge_basis_backward(const Tensor &gy_, const Tensor &gbeta_, const Tensor &vectors_,
                           const Tensor &polynomials_, double cutoff, int64_t intervals, int64_t lmax) {
  const Tensor gy = gy_.contiguous(), gbeta = gbeta_.contiguous(), vectors = vectors_.contiguous();
  const Tensor polynomials = polynomials_.to(at::kDouble).contiguous();
  Tensor out = at::empty_like(vectors);
  if (vectors.size(0) == 0) return out;
  const MlipEdgeShape s = edge_shape(vectors, polynomials, cutoff, intervals, lmax);
  by_type(vectors, "edge_basis_backward", [&](auto t) {
    using T = decltype(t);
    if constexpr (std::is_same_v<T, float>)
      return mlip_edge_basis_backward_f32(&s, data<T>(gy), data<T>(gbeta), data<T>(vectors), data<T>(out));
    else
      return mlip_edge_basis_backward_f64(&s, data<T>(gy), data<T>(gbeta), data<T>(vectors), data<T>(out));
  });
  return out;
}

// --- message --------------------------------------------------------------------------------------

struct MessageOperands {
  Tensor a, y, beta, table, weight, row, senders, receivers;

  MlipMessageShape shape(int64_t num_receivers) const {
    return {a.size(0),     num_receivers,           senders.size(0),          weight.size(0),
            a.size(1),     table.size(1),           table.size(2),            beta.size(1),
            table.size(0), current_threads,         data<int64_t>(senders),   data<int64_t>(receivers),
            data<int64_t>(row)};
  }
};

Tensor message(const Tensor &a, const Tensor &y, const Tensor &beta, const Tensor &table, const Tensor &weight,
               const Tensor &row, const Tensor &senders, const Tensor &receivers, int64_t num_receivers) {
  const MessageOperands o{a.contiguous(),      y.contiguous(),   beta.contiguous(),    table.contiguous(),
                          weight.contiguous(), row.contiguous(), senders.contiguous(), receivers.contiguous()};
  Tensor z = at::empty({num_receivers, weight.size(0), a.size(2)}, a.options());
  const MlipMessageShape s = o.shape(num_receivers);
  by_type(a, "message", [&](auto t) {
    using T = decltype(t);
    const auto run = [&](auto kernel) {
      return kernel(&s, data<T>(o.a), data<T>(o.y), data<T>(o.beta), data<T>(o.table), data<T>(o.weight),
                    data<T>(z));
    };
    if constexpr (std::is_same_v<T, float>)
      return run(mlip_message_f32);
    else
      return run(mlip_message_f64);
  });
  return z;
}

Tensors4 message_backward(const Tensor &g_, const Tensor &a, const Tensor &y, const Tensor &beta,
                          const Tensor &table, const Tensor &weight, const Tensor &row, const Tensor &senders,
                          const Tensor &receivers, bool need_table) {
  const Tensor g = g_.contiguous();
  const MessageOperands o{a.contiguous(),      y.contiguous(),   beta.contiguous(),    table.contiguous(),
                          weight.contiguous(), row.contiguous(), senders.contiguous(), receivers.contiguous()};
  Tensor ga = at::empty_like(o.a), gy = at::empty_like(o.y), gbeta = at::empty_like(o.beta);
  Tensor gtable = need_table ? at::empty_like(o.table) : at::empty({0}, o.table.options());
  const MlipMessageShape s = o.shape(g.size(0));
  by_type(a, "message_backward", [&](auto t) {
    using T = decltype(t);
    const auto run = [&](auto kernel) {
      return kernel(&s, data<T>(g), data<T>(o.a), data<T>(o.y), data<T>(o.beta), data<T>(o.table),
                    data<T>(o.weight), data<T>(ga), data<T>(gy), data<T>(gbeta),
                    need_table ? data<T>(gtable) : nullptr);
    };
    if constexpr (std::is_same_v<T, float>)
      return run(mlip_message_backward_f32);
    else
      return run(mlip_message_backward_f64);
  });
  return {ga, gy, gbeta, gtable};
}

// --- sphere product -------------------------------------------------------------------------------

struct SphereOperands {
  Tensor a, scale, weight, to_points, from_points, species;

  MlipSphereShape shape() const {
    return {a.size(0),     scale.size(0), from_points.size(1), scale.size(2),         from_points.size(0),
            scale.size(1), a.size(2),     current_threads,     data<int64_t>(species)};
  }
};

Tensor sphere_product(const Tensor &a, const Tensor &scale, const Tensor &weight, const Tensor &to_points,
                      const Tensor &from_points, const Tensor &species) {
  const SphereOperands o{a.contiguous(),         scale.contiguous(),       weight.contiguous(),
                         to_points.contiguous(), from_points.contiguous(), species.contiguous()};
  Tensor out = at::empty({a.size(0), from_points.size(0), a.size(2)}, a.options());
  const MlipSphereShape s = o.shape();
  by_type(a, "sphere_product", [&](auto t) {
    using T = decltype(t);
    const auto run = [&](auto kernel) {
      return kernel(&s, data<T>(o.a), data<T>(o.scale), data<T>(o.weight), data<T>(o.to_points),
                    data<T>(o.from_points), data<T>(out));
    };
    if constexpr (std::is_same_v<T, float>)
      return run(mlip_sphere_product_f32);
    else
      return run(mlip_sphere_product_f64);
  });
  return out;
}

Tensors3 sphere_product_backward(const Tensor &g_, const Tensor &a, const Tensor &scale, const Tensor &weight,
                                 const Tensor &to_points, const Tensor &from_points, const Tensor &species,
                                 bool need_parameters) {
  const Tensor g = g_.contiguous();
  const SphereOperands o{a.contiguous(),         scale.contiguous(),       weight.contiguous(),
                         to_points.contiguous(), from_points.contiguous(), species.contiguous()};
  Tensor ga = at::empty_like(o.a);
  const auto room = [&](const Tensor &t) {
    return need_parameters ? at::empty_like(t) : at::empty({0}, t.options());
  };
  Tensor gscale = room(o.scale), gweight = room(o.weight);
  const MlipSphereShape s = o.shape();
  by_type(a, "sphere_product_backward", [&](auto t) {
    using T = decltype(t);
    const auto run = [&](auto kernel) {
      return kernel(&s, data<T>(g), data<T>(o.a), data<T>(o.scale), data<T>(o.weight), data<T>(o.to_points),
                    data<T>(o.from_points), data<T>(ga), need_parameters ? data<T>(gscale) : nullptr,
                    need_parameters ? data<T>(gweight) : nullptr);
    };
    if constexpr (std::is_same_v<T, float>)
      return run(mlip_sphere_product_backward_f32);
    else
      return run(mlip_sphere_product_backward_f64);
  });
  return {ga, gscale, gweight};
}

// --- linear ---------------------------------------------------------------------------------------

// The last operand of both is for the gradient alone.
Tensor linear(const Tensor &x_, const Tensor &weight_, const Tensor &) {
  const Tensor x = x_.contiguous(), weight = weight_.contiguous();
  Tensor out = at::empty({x.size(0), x.size(1), weight.size(2)}, x.options());
  const MlipLinearShape s{x.size(0), weight.size(0), x.size(2), weight.size(2), current_threads};
  by_type(x, "linear", [&](auto t) {
    using T = decltype(t);
    if constexpr (std::is_same_v<T, float>)
      return mlip_linear_f32(&s, data<T>(x), data<T>(weight), data<T>(out));
    else
      return mlip_linear_f64(&s, data<T>(x), data<T>(weight), data<T>(out));
  });
  return out;
}

Tensor project(const Tensor &x_, const Tensor &matrix_, const Tensor &) {
  const Tensor x = x_.contiguous(), matrix = matrix_.contiguous();
  Tensor out = at::empty({x.size(0), matrix.size(0), x.size(2)}, x.options());
  const MlipProjectShape s{x.size(0), x.size(1), matrix.size(0), x.size(2), current_threads};
  by_type(x, "project", [&](auto t) {
    using T = decltype(t);
    if constexpr (std::is_same_v<T, float>)
      return mlip_project_f32(&s, data<T>(x), data<T>(matrix), data<T>(out));
    else
      return mlip_project_f64(&s, data<T>(x), data<T>(matrix), data<T>(out));
  });
  return out;
}

// --- halo -----------------------------------------------------------------------------------------

std::vector<int64_t> with_rows(const Tensor &t, int64_t rows) {
  std::vector<int64_t> sizes = t.sizes().vec();
  sizes[0] = rows;
  return sizes;
}

Tensor halo(const Tensor &x, int64_t total) {
  const int64_t owned = x.size(0);
  Tensor out = at::empty(with_rows(x, total), x.options());
  out.narrow(0, 0, owned).copy_(x);
  TORCH_CHECK(total == owned || current_halo, "copies of atoms are there, but nobody to exchange them");
  if (current_halo) {
    const size_t row = x.element_size() * (out.stride(0));
    char *rows = static_cast<char *>(out.data_ptr());
    current_halo->spread(rows, rows + owned * row, row);
  }
  return out;
}

Tensor halo_adjoint(const Tensor &g_, int64_t owned) {
  const Tensor g = g_.contiguous();
  TORCH_CHECK(g.size(0) == owned || current_halo, "copies of atoms are there, but nobody to exchange them");
  Tensor out = at::empty(with_rows(g, owned), g.options());
  out.copy_(g.narrow(0, 0, owned));
  if (current_halo) {
    const int64_t width = g.stride(0);
    if (g.scalar_type() == at::kFloat)
      current_halo->collect(data<float>(g) + owned * width, data<float>(out), width);
    else
      current_halo->collect(data<double>(g) + owned * width, data<double>(out), width);
  }
  return out;
}

const char *const kSchemas[] = {
    "edge_basis(Tensor vectors, Tensor polynomials, float cutoff, int intervals, int lmax)"
    " -> (Tensor, Tensor, Tensor)",
    "edge_basis_backward(Tensor gy, Tensor gbeta, Tensor vectors, Tensor polynomials, float cutoff,"
    " int intervals, int lmax) -> Tensor",
    "message(Tensor a, Tensor y, Tensor beta, Tensor table, Tensor weight, Tensor row, Tensor senders,"
    " Tensor receivers, SymInt num_receivers) -> Tensor",
    "message_backward(Tensor g, Tensor a, Tensor y, Tensor beta, Tensor table, Tensor weight, Tensor row,"
    " Tensor senders, Tensor receivers, bool need_table) -> (Tensor, Tensor, Tensor, Tensor)",
    "sphere_product(Tensor a, Tensor scale, Tensor weight, Tensor to_points, Tensor from_points,"
    " Tensor species) -> Tensor",
    "sphere_product_backward(Tensor g, Tensor a, Tensor scale, Tensor weight, Tensor to_points,"
    " Tensor from_points, Tensor species, bool need_parameters) -> (Tensor, Tensor, Tensor)",
    "linear(Tensor x, Tensor weight, Tensor transposed) -> Tensor",
    "project(Tensor x, Tensor matrix, Tensor transposed) -> Tensor",
    "halo(Tensor x, SymInt total) -> Tensor",
    "halo_adjoint(Tensor g, SymInt owned) -> Tensor",
};

class Silent : public c10::WarningHandler {
  void process(const c10::Warning &) override {}
};

void register_all() {
  // Where Python defined the operators for tracing, its kernels give way; torch would warn of that.
  Silent silent;
  c10::WarningUtils::WarningHandlerGuard guard(&silent);
  static torch::Library library(torch::Library::FRAGMENT, "mlip_engine", std::nullopt, __FILE__, __LINE__);
  for (const char *schema : kSchemas) {
    const std::string text(schema), name = "mlip_engine::" + text.substr(0, text.find('('));
    if (!c10::Dispatcher::singleton().findSchema({name, ""})) library.def(schema);
  }
  const auto cpu = c10::DispatchKey::CPU;
  library.impl("edge_basis", torch::dispatch(cpu, TORCH_FN(edge_basis)));
  library.impl("edge_basis_backward", torch::dispatch(cpu, TORCH_FN(edge_basis_backward)));
  library.impl("message", torch::dispatch(cpu, TORCH_FN(message)));
  library.impl("message_backward", torch::dispatch(cpu, TORCH_FN(message_backward)));
  library.impl("sphere_product", torch::dispatch(cpu, TORCH_FN(sphere_product)));
  library.impl("sphere_product_backward", torch::dispatch(cpu, TORCH_FN(sphere_product_backward)));
  library.impl("linear", torch::dispatch(cpu, TORCH_FN(linear)));
  library.impl("project", torch::dispatch(cpu, TORCH_FN(project)));
  library.impl("halo", torch::dispatch(cpu, TORCH_FN(halo)));
  library.impl("halo_adjoint", torch::dispatch(cpu, TORCH_FN(halo_adjoint)));
}

}  // namespace

void register_operators() {
  static const bool done = (register_all(), true);
  (void)done;
}

Evaluation::Evaluation(Halo &halo, int threads) {
  current_halo = &halo;
  current_threads = threads;
  kernel_time = 0;
}

double Evaluation::kernel_seconds() const { return kernel_time; }

Evaluation::~Evaluation() {
  current_halo = nullptr;
  current_threads = 0;
}

}  // namespace mlip
