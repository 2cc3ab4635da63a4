// SPDX-License-Identifier: MIT
#pragma once

#define SYNCBN_VERSION_MAJOR 0
#define SYNCBN_VERSION_MINOR 1
#define SYNCBN_VERSION_PATCH 0
#define SYNCBN_VERSION "0.1.0"
