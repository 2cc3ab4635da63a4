// SPDX-License-Identifier: MIT
// Everything: synchronized batch normalization for MPI programs.
#pragma once

#include "syncbn/batch_norm.hpp"
#include "syncbn/channel_vector.hpp"
#include "syncbn/checkpoint.hpp"
#include "syncbn/communicator.hpp"
#include "syncbn/drift_probe.hpp"
#include "syncbn/error.hpp"
#include "syncbn/export.h"
#include "syncbn/half.hpp"
#include "syncbn/options.hpp"
#include "syncbn/pass_costs.hpp"
#include "syncbn/reproducible_sum.hpp"
#include "syncbn/tensor_view.hpp"
#include "syncbn/version.hpp"
