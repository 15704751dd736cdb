// The message operator: C interface, no torch headers.
//
//   z[n,q,c] = sum over edges e -> n of a[s(e),q,c] * sum_l b[e,l,q] * w[e,l,c]
//   b[e,l,q] = sum over m of weight[q,lm] * y[e,lm]          (harmonics through one factor)
//   w[e,l,c] = sum over k of beta[e,k] * table[row[e]+k,l,c] (radial functions)
//
// It is linear in each of a, y, beta and table, so its derivatives are sums of the same form.
// The dual kernels carry a tangent beside each value: dz is the derivative of z along da, dy and dbeta
// (a missing da is zero).
// All arrays are dense and row-major. Edges are sorted by receiver.
#pragma once
#include <cstdint>

#define MLIP_API __attribute__((visibility("default")))

extern "C" {

struct MlipMessageShape {
  int64_t senders_n;    // nodes that send: rows of a
  int64_t receivers_n;  // nodes that receive: rows of z
  int64_t edges;
  int64_t points;     // R: number of factors q
  int64_t a_points;   // R, or 1: the same a for every q
  int64_t degrees;    // lmax + 1
  int64_t channels;   // C
  int64_t basis;      // K
  int64_t rows;       // rows of the radial table
  int64_t threads;    // 0: as many as OpenMP gives
  const int64_t* senders;
  const int64_t* receivers;
  const int64_t* row;  // first row of the radial table for each edge
};

#define MLIP_DECLARE(T, NAME)                                                                       \
  MLIP_API int mlip_message_##NAME(const MlipMessageShape*, const T* a, const T* y, const T* beta,            \
                          const T* table, const T* weight, T* z);                                    \
  MLIP_API int mlip_message_backward_##NAME(const MlipMessageShape*, const T* g, const T* a, const T* y,      \
                                   const T* beta, const T* table, const T* weight, T* ga, T* gy,     \
                                   T* gbeta, T* gtable);                                             \
  MLIP_API int mlip_message_double_backward_##NAME(const MlipMessageShape*, const T* da, const T* dy,         \
                                          const T* dbeta, const T* dtable, const T* g, const T* a,   \
                                          const T* y, const T* beta, const T* table,                 \
                                          const T* weight, T* gg, T* ga, T* gy, T* gbeta, T* gtable); \
  MLIP_API int mlip_message_dual_##NAME(const MlipMessageShape*, const T* da, const T* dy,                    \
                               const T* dbeta, const T* a, const T* y, const T* beta,                \
                               const T* table, const T* weight, T* z, T* dz);                        \
  MLIP_API int mlip_message_dual_backward_##NAME(const MlipMessageShape*, const T* gz, const T* gdz,          \
                                        const T* da, const T* dy, const T* dbeta, const T* a,        \
                                        const T* y, const T* beta, const T* table,                   \
                                        const T* weight, T* ga, T* gda, T* gtable);

MLIP_DECLARE(float, f32)
MLIP_DECLARE(double, f64)
#undef MLIP_DECLARE

// "avx512", "avx2" or "generic": what the dispatcher chose on this machine.
MLIP_API const char* mlip_isa(void);
// Force one of them (tests); returns 0, or 1 when this machine lacks it.
MLIP_API int mlip_set_isa(const char* name);
}
