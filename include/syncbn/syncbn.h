// SPDX-License-Identifier: MIT
/*
 * Synchronized batch normalization, as C99 sees it: for trainers in C, Fortran, Python or anything else that calls C. What
 * the calls do, send, cost and promise stands in batch_norm.hpp and communicator.hpp; here stands what is different.
 *
 *   syncbn_layer_options options;
 *   syncbn_layer_options_init(&options, sizeof options);
 *   options.num_features = 64;
 *   syncbn_communicator* world = NULL;
 *   syncbn_layer* bn = NULL;
 *   syncbn_cache* cache = NULL;
 *   if (syncbn_communicator_create((int32_t)MPI_Comm_c2f(MPI_COMM_WORLD), NULL, &world) != SYNCBN_OK ||
 *       syncbn_layer_create(&options, world, &bn) != SYNCBN_OK || syncbn_cache_create(&cache) != SYNCBN_OK) {
 *     fprintf(stderr, "%s\n", syncbn_last_error());
 *   }
 *
 * Errors. Every call but those that return nothing returns SYNCBN_OK or what went wrong, and syncbn_last_error() says it in
 * one sentence. A wrong tensor or option of one rank is the same error on all ranks, as in C++; SYNCBN_ERROR_ARGUMENT (a
 * null handle, a number that names nothing) is the calling rank's own. No C++ exception leaves a call.
 *
 * Objects belong to the caller, who destroys them; a communicator may go before its layers. Strings and arrays that are
 * passed in are copied, tensors and bound memory are not. One call at a time per object.
 *
 * The structs with struct_size may grow at their ends; nothing else changes while SYNCBN_ABI_VERSION is the same.
 */
#ifndef SYNCBN_SYNCBN_H
#define SYNCBN_SYNCBN_H

#include <stddef.h>
#include <stdint.h>

#include "syncbn/export.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SYNCBN_ABI_VERSION 1

typedef struct syncbn_communicator syncbn_communicator;
typedef struct syncbn_layer syncbn_layer;
typedef struct syncbn_cache syncbn_cache;

typedef int32_t syncbn_status;
enum {
  SYNCBN_OK = 0,
  SYNCBN_ERROR_SHAPE = 1,      /* a tensor's shape, strides, dtype or pointer does not fit the layer */
  SYNCBN_ERROR_OPTION = 2,     /* an option is out of its range */
  SYNCBN_ERROR_STATE = 3,      /* a call that the object cannot serve now */
  SYNCBN_ERROR_MISMATCH = 4,   /* the ranks do not do the same */
  SYNCBN_ERROR_MPI = 5,        /* MPI, or the caller's all-gather, failed */
  SYNCBN_ERROR_NON_FINITE = 6, /* a NaN or an infinity, under SYNCBN_NON_FINITE_ERROR */
  SYNCBN_ERROR_TIMEOUT = 7,    /* a rank did not come within the deadline */
  SYNCBN_ERROR_ARGUMENT = 8,   /* this call's handle, pointer or number */
  SYNCBN_ERROR_MEMORY = 9,     /* there is not enough memory */
  SYNCBN_ERROR_OTHER = 10      /* something that should not happen */
};

/* Element types. */
enum { SYNCBN_F32 = 0, SYNCBN_F64 = 1, SYNCBN_BF16 = 2, SYNCBN_F16 = 3 };

/* The sentence of this thread's last call that failed; "" before the first. Valid until its next call that fails. */
SYNCBN_API const char* syncbn_last_error(void);
/* "0.1.0", and SYNCBN_ABI_VERSION of the library that runs. */
SYNCBN_API const char* syncbn_version(void);
SYNCBN_API int32_t syncbn_abi_version(void);
/* "avx512", "avx2", "native" or "scalar". */
SYNCBN_API const char* syncbn_instruction_set(void);

/*
 * A tensor that the caller owns, described as DLPack does: extents (N, C) or (N, C, *spatial), and strides in elements. Row-major
 * strides (NULL: these) and those of channels-last memory (N, *spatial, C) are taken as they are; any others would need a
 * copy and are an error. No tensor: NULL in its place, or ndim 0 and data NULL. Extents and strides are read during the
 * call alone, data of passes in flight and of caches later, too.
 */
typedef struct syncbn_tensor {
  void* data; /* only read where the tensor is an input */
  int32_t dtype;
  int32_t ndim;
  const int64_t* shape;
  const int64_t* strides;
} syncbn_tensor;

/* ---- communicators ------------------------------------------------------------------------------------------------- */

enum { SYNCBN_EXCHANGE_AUTOMATIC = 0, SYNCBN_EXCHANGE_ALL_REDUCE = 1, SYNCBN_EXCHANGE_ALL_GATHER = 2 };

typedef struct syncbn_communicator_options {
  size_t struct_size;
  double deadline_seconds; /* > 0; 0: SYNCBN_DEADLINE_SECONDS of the environment, else 600 */
  int32_t exchange;
} syncbn_communicator_options;

/* The defaults. struct_size: sizeof *options, as the caller's header has it. */
SYNCBN_API void syncbn_communicator_options_init(syncbn_communicator_options* options, size_t struct_size);

/* all <- every rank's `bytes` bytes in the order of ranks. Returns 0, or else a number that becomes part of the error. */
typedef int32_t (*syncbn_all_gather)(void* context, const void* mine, size_t bytes, void* all);

/*
 * This process alone; all ranks of an MPI communicator, given as its Fortran integer (MPI_Comm_c2f); groups of `ranks`
 * consecutive ranks of it; those that share a node; `size` processes that have an all-gather of their own, no MPI. options may
 * be NULL. Collective but for the first.
 */
SYNCBN_API syncbn_status syncbn_communicator_self(syncbn_communicator** communicator);
SYNCBN_API syncbn_status syncbn_communicator_create(int32_t fortran_communicator,
                                                    const syncbn_communicator_options* options,
                                                    syncbn_communicator** communicator);
SYNCBN_API syncbn_status syncbn_communicator_groups_of(int32_t ranks, int32_t fortran_communicator,
                                                       const syncbn_communicator_options* options,
                                                       syncbn_communicator** communicator);
SYNCBN_API syncbn_status syncbn_communicator_per_node(int32_t fortran_communicator,
                                                      const syncbn_communicator_options* options,
                                                      syncbn_communicator** communicator);
SYNCBN_API syncbn_status syncbn_communicator_from_callback(int32_t rank, int32_t size, syncbn_all_gather all_gather,
                                                           void* context, const syncbn_communicator_options* options,
                                                           syncbn_communicator** communicator);
SYNCBN_API void syncbn_communicator_destroy(syncbn_communicator* communicator);

/* -1 for NULL. */
SYNCBN_API int32_t syncbn_communicator_rank(const syncbn_communicator* communicator);
SYNCBN_API int32_t syncbn_communicator_size(const syncbn_communicator* communicator);

/* For a rank that has run out of data. *last_rank (may be NULL): the lowest rank that had data in the last step. */
SYNCBN_API syncbn_status syncbn_communicator_join(syncbn_communicator* communicator, int32_t* last_rank);
/* The others' deadlines start again. */
SYNCBN_API syncbn_status syncbn_communicator_still_here(const syncbn_communicator* communicator);

/* ---- layers -------------------------------------------------------------------------------------------------------- */

enum { SYNCBN_ACTIVATION_NONE = 0, SYNCBN_ACTIVATION_RELU = 1 };
enum { SYNCBN_GRADIENTS_GLOBAL = 0, SYNCBN_GRADIENTS_LOCAL = 1 };
enum { SYNCBN_REDUCTION_FAST = 0, SYNCBN_REDUCTION_REPRODUCIBLE = 1 };
enum { SYNCBN_NON_FINITE_PROPAGATE = 0, SYNCBN_NON_FINITE_ERROR = 1 };

/* BatchNormOptions of options.hpp, with the same defaults. Flags are 0 or 1. */
typedef struct syncbn_layer_options {
  size_t struct_size;
  int64_t num_features;
  double eps;
  double momentum;            /* weight of the newest batch; not used with cumulative_average */
  int32_t cumulative_average; /* momentum=None of PyTorch */
  int32_t affine;
  int32_t track_running_stats;
  int32_t unbiased_running_var;
  int32_t activation;
  int32_t parameter_gradients;
  int32_t parameter_type; /* SYNCBN_F32 (with f32, bf16 and f16 tensors) or SYNCBN_F64 */
  int32_t reduction;
  int32_t non_finite;
  int32_t threads;
  const char* name; /* stands in errors */
} syncbn_layer_options;

SYNCBN_API void syncbn_layer_options_init(syncbn_layer_options* options, size_t struct_size);

/* communicator NULL: this process alone. Collective. */
SYNCBN_API syncbn_status syncbn_layer_create(const syncbn_layer_options* options, syncbn_communicator* communicator,
                                             syncbn_layer** layer);
SYNCBN_API void syncbn_layer_destroy(syncbn_layer* layer);

/* What a forward pass leaves for the backward pass. May be used again for the next step. */
SYNCBN_API syncbn_status syncbn_cache_create(syncbn_cache** cache);
SYNCBN_API void syncbn_cache_destroy(syncbn_cache* cache);

/* residual may be NULL. y may be x (then this cache has no x, see syncbn_cache_set_input). */
SYNCBN_API syncbn_status syncbn_layer_forward_train(syncbn_layer* layer, const syncbn_tensor* x, const syncbn_tensor* y,
                                                    const syncbn_tensor* residual, syncbn_cache* cache);
SYNCBN_API syncbn_status syncbn_layer_forward_eval(syncbn_layer* layer, const syncbn_tensor* x, const syncbn_tensor* y,
                                                   const syncbn_tensor* residual);
SYNCBN_API syncbn_status syncbn_layer_forward_frozen(syncbn_layer* layer, const syncbn_tensor* x,
                                                     const syncbn_tensor* y, const syncbn_tensor* residual,
                                                     syncbn_cache* cache);

/* y once more with the statistics of a cache that a forward pass has filled: no message, no update. */
SYNCBN_API syncbn_status syncbn_layer_forward_again(syncbn_layer* layer, syncbn_cache* cache, const syncbn_tensor* x,
                                                    const syncbn_tensor* y, const syncbn_tensor* residual);

/* dx, dresidual: may be NULL. dgamma, dbeta: C numbers of the parameter type each, or NULL. The message is the same whatever
 * this rank wants to have. */
SYNCBN_API syncbn_status syncbn_layer_backward(syncbn_layer* layer, const syncbn_cache* cache, const syncbn_tensor* dy,
                                               const syncbn_tensor* dx, const syncbn_tensor* dresidual, void* dgamma,
                                               void* dbeta);

/* In two halves, with computing of the caller's in between; *done: finish will not wait. */
SYNCBN_API syncbn_status syncbn_layer_begin_forward_train(syncbn_layer* layer, const syncbn_tensor* x,
                                                          const syncbn_tensor* y, const syncbn_tensor* residual,
                                                          syncbn_cache* cache);
SYNCBN_API syncbn_status syncbn_layer_finish_forward_train(syncbn_layer* layer);
SYNCBN_API syncbn_status syncbn_layer_begin_backward(syncbn_layer* layer, const syncbn_cache* cache,
                                                     const syncbn_tensor* dy, const syncbn_tensor* dx,
                                                     const syncbn_tensor* dresidual, void* dgamma, void* dbeta);
SYNCBN_API syncbn_status syncbn_layer_finish_backward(syncbn_layer* layer);
SYNCBN_API syncbn_status syncbn_layer_progress(syncbn_layer* layer, int32_t* done);

/* Parameters and state: C numbers of the parameter type each. */
enum { SYNCBN_GAMMA = 0, SYNCBN_BETA = 1, SYNCBN_RUNNING_MEAN = 2, SYNCBN_RUNNING_VAR = 3 };

/* Where the layer's own numbers are (NULL if it has none of these), or those that are bound. Valid while the layer is. */
SYNCBN_API syncbn_status syncbn_layer_state(syncbn_layer* layer, int32_t which, void** data);
/*
 * From now on these are the caller's C numbers at `data`: read when a call begins, written (running statistics) when it ends well.
 * They must be there until the layer is destroyed or bound elsewhere; NULL: the layer's own again, with their last values. They
 * are not changed by binding. State that the layer does not have may only be bound to NULL.
 */
SYNCBN_API syncbn_status syncbn_layer_bind(syncbn_layer* layer, int32_t which, void* data);

SYNCBN_API syncbn_status syncbn_layer_num_batches_tracked(const syncbn_layer* layer, int64_t* count);
SYNCBN_API syncbn_status syncbn_layer_set_num_batches_tracked(syncbn_layer* layer, int64_t count);

/* ---- what a cache holds -------------------------------------------------------------------------------------------- */

enum { SYNCBN_MEAN = 0, SYNCBN_VAR = 1, SYNCBN_INVSTD = 2 };

/* C doubles (var is biased), valid until the cache is used again; *size 0 if no pass has filled it. */
SYNCBN_API syncbn_status syncbn_cache_statistics(const syncbn_cache* cache, int32_t which, const double** data,
                                                 int64_t* size);
/* Values per channel in the global batch. */
SYNCBN_API syncbn_status syncbn_cache_count(const syncbn_cache* cache, int64_t* count);
/* The backward pass reads x (and, behind an activation, y: `output`) here: copies that were kept, or made again. output may be NULL. */
SYNCBN_API syncbn_status syncbn_cache_set_input(syncbn_cache* cache, const syncbn_tensor* x,
                                                const syncbn_tensor* output);

#ifdef __cplusplus
}
#endif

#endif
