// SPDX-License-Identifier: MIT
/* What the shared library shows to programs; all else in it is hidden, as are the insides of classes that it shows. */
#ifndef SYNCBN_EXPORT_H
#define SYNCBN_EXPORT_H

#if defined(__GNUC__)
#define SYNCBN_API __attribute__((visibility("default")))
#define SYNCBN_HIDDEN __attribute__((visibility("hidden")))
#else
#define SYNCBN_API
#define SYNCBN_HIDDEN
#endif

#endif
